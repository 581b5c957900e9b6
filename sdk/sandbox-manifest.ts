/**
 * What a package in a sandbox may do, and what becomes of its streams when it fails: `sandbox` of its definition. Core reads it when
 * the package is built. What the package may not see never enters its isolate; an edit that it may not make fails the stream.
 */
export interface SandboxManifest {
  /** Clusters that `fetch` may ask. Absent: any. */
  readonly clusters?: readonly string[];
  readonly headers?: {
    /**
     * Lower-case names of the request and response headers that its filters see. Absent: all. Method, path and status are always
     * seen.
     */
    readonly read?: readonly string[];
    /** The same for headers that they may set, add and remove, here with `:method`, `:path` and `:status`. Absent: all. */
    readonly write?: readonly string[];
  };
  /** `none`: its filters do not see bodies. `read`: they see them and may not replace them. Absent: they may do both. */
  readonly body?: "none" | "read";
  /** Whether it uses cells that workers share. Absent: core looks whether its source names any. */
  readonly shared?: boolean;
  /**
   * While the isolate is down, and when a hook throws or its promise is late: streams fail (`closed`, the default), go on without the
   * filter (`open`), or use the generation before this one (`previous`; without one, `closed`).
   */
  readonly failurePolicy?: "closed" | "open" | "previous";
  /** Name of a boolean field of its per-route config: on routes that set it, streams skip the filter and do not enter the sandbox. */
  readonly disabledBy?: string;
  /** Share of one CPU in each worker: 0.1 is a tenth. Streams that need more have to wait. Absent: 1. */
  readonly cpuShare?: number;
  /** MiB that its objects may take in each worker; past that the isolate is replaced by a fresh one. Absent: 64. */
  readonly memoryMb?: number;
  /** How long the promise of a hook may take before its stream is answered 504, or goes on (`open`). Absent: 10,000. */
  readonly pauseMs?: number;
}
