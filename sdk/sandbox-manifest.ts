/**
 * What a package in a sandbox may do, and what becomes of its streams when it fails: `sandbox` of its definition. Core reads it when
 * the package is built; what is not allowed is never sent into the isolate, and what comes out of it in spite of that fails the stream.
 */
export interface SandboxManifest {
  /** Clusters that `fetch` may ask. Absent: any. */
  readonly clusters?: readonly string[];
  readonly headers?: {
    /** Names, lower case, of request and response headers that its filters see. Absent: all. Method, path and status are always there. */
    readonly read?: readonly string[];
    /** The same for those that they may set, add and remove; `:method`, `:path` and `:status` among them. Absent: all. */
    readonly write?: readonly string[];
  };
  /** `none`: bodies pass by its filters. `read`: they see bodies and may not replace them. Absent: they may. */
  readonly body?: "none" | "read";
  /** Whether it has cells that other workers share. Absent: if its source names any. */
  readonly shared?: boolean;
  /**
   * While it cannot be entered, and where a hook of it throws: streams fail (`closed`, the default), pass it by (`open`), or are taken
   * by the code that ran before it (`previous`; while there is none, `closed`).
   */
  readonly failurePolicy?: "closed" | "open" | "previous";
  /** A flag of its per-route config: streams of routes that set it have no such filter, and nothing of them goes into the sandbox. */
  readonly disabledBy?: string;
  /** Of one CPU, for each worker: 0.1 is a tenth. What asks for more waits, and its streams with it. Absent: 1. */
  readonly cpuShare?: number;
  /** MiB that its objects may take, in each worker; with more in use it is begun anew. Absent: 64. */
  readonly memoryMb?: number;
  /** Milliseconds that the promise of a hook may take; then its stream is answered 504. Absent: 10,000. */
  readonly pauseMs?: number;
}
