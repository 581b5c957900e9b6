import type { LevelName } from "./log.ts";

/** What `tsproxy run` was asked for; the supervisor hands it to the proxy as JSON. */
export interface RunOptions {
  readonly configFile: string;
  readonly concurrency: number;
  readonly logLevel: LevelName;
  readonly serviceCluster: string;
  readonly serviceNode: string;
  /** Directories of dropped-in packages. */
  readonly filters: readonly string[];
  readonly trusted: readonly string[];
  readonly strict: boolean;
  /** Lines of access logs are written this long after the first of them, or when 64 KiB have gathered. */
  readonly fileFlushIntervalMsec?: number;
}

/** The Node that runs the proxy. */
export interface Runtime {
  readonly node: string;
  readonly flags: readonly string[];
}

/** Proxy -> supervisor. */
export type ToSupervisor =
  | { readonly type: "ready" }
  /** It was asked to end: however it ends now, it is not started again. */
  | { readonly type: "stopping" }
  /** Ten times a second: how often each thread has turned, and how long it may be silent. */
  | { readonly type: "beat"; readonly threads: readonly ThreadBeat[] };

export interface ThreadBeat {
  readonly name: string;
  readonly turns: number;
  readonly boxMs: number;
}
