import type { Overlay } from "./config/overlay.ts";
import type { DevEvent } from "./dev-events.ts";
import type { LogOptions } from "./log-options.ts";

/** What `tsproxy run` was asked for; the supervisor hands it to the proxy as JSON. */
export interface RunOptions {
  /** "": all of it stands in the overlays. */
  readonly configFile: string;
  /** Of a file that can be read once only: a pipe, standard input. */
  readonly configText?: string;
  readonly overlays: readonly Overlay[];
  readonly concurrency: number;
  readonly log: LogOptions;
  readonly serviceCluster: string;
  readonly serviceNode: string;
  /** Directories of dropped-in packages. */
  readonly filters: readonly string[];
  readonly trusted: readonly string[];
  /** Sandboxed packages that the process before ended in. */
  readonly quarantined?: readonly string[];
  readonly strict: boolean;
  /** Lines of access logs are written this long after the first of them, or when 64 KiB have gathered. */
  readonly fileFlushIntervalMsec: number;
  readonly allowUnknown: boolean;
  /** Connections of a listener or chain that is gone may finish for so long. */
  readonly drainTimeMs: number;
  /** --drain-strategy immediate */
  readonly drainImmediately: boolean;
  /** A proxy that was taken over ends after so long at the latest. */
  readonly parentShutdownMs: number;
  /** Where the address that admin got is written; "": nowhere. */
  readonly adminAddressPath: string;
  readonly addressFamily: "v4" | "v6";
  /** Binds beside the proxy that serves this config, and ends it. */
  readonly takeover: boolean;
  /** Started while the process before seems to hang: it sets everything up, and binds beside that one when it is told to. */
  readonly standby?: boolean;
  /** Where the next one finds this one; "": nowhere. */
  readonly controlSocket: string;
  /** `tsproxy filter dev` has started it: exchanges are recorded, and it tells what happens. */
  readonly dev?: boolean;
  /** Debuggers attach at this port of 127.0.0.1 to the sandboxes of the first worker; 0: any. */
  readonly inspectPort?: number | undefined;
}

/** The Node that runs the proxy. */
export interface Runtime {
  readonly node: string;
  readonly flags: readonly string[];
}

/** A terminal's Ctrl-C reaches supervisor and proxy, and what one passes on reaches the other again: one signal for all of them. */
export const SAME_SIGNAL_MS = 300;

/** Supervisor -> proxy. */
export type ToProxy =
  /** Another one serves beside it. It takes no more connections, and ends with the last one, or after `ms`. */
  | { readonly type: "retire"; readonly ms: number }
  /** It seems to hang, and a standby is started: what it has built of dropped-in packages need not be built again. */
  | { readonly type: "keep_builds" }
  /** To a standby. */
  | { readonly type: "serve" };

/** Proxy -> supervisor. */
export type ToSupervisor =
  | { readonly type: "ready" }
  /** A standby waits for `serve`. */
  | { readonly type: "prepared" }
  /** It was asked to end: however it ends now, it is not started again. */
  | { readonly type: "stopping" }
  | { readonly type: "dev"; readonly event: DevEvent }
  /** Ten times a second: how often each thread has turned, and how long it may be silent. */
  | { readonly type: "beat"; readonly threads: readonly ThreadBeat[] };

export interface ThreadBeat {
  readonly name: string;
  readonly turns: number;
  /** CPU that it has had; 0: unknown. */
  readonly cpuMs?: number;
  /** The sandboxed package that it is in now. */
  readonly inside?: string | undefined;
  readonly boxMs: number;
}
