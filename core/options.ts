import type { ChildProcess } from "node:child_process";
import type { Overlay } from "./config/overlay.ts";
import type { DevEvent } from "./dev-events.ts";
import type { LogOptions } from "./logs/log-options.ts";
import type { HeldSocket, ListeningAt } from "./process/held-sockets.ts";
import type { FileFlush } from "./protocol.ts";
import type { Served, ServedChange } from "./reload/served.ts";

/** What `tsproxy run` was asked for; the supervisor hands it to the proxy as JSON. */
export interface RunOptions {
  /** "": the overlays hold the whole config. */
  readonly configFile: string;
  /** The text of a config file that can be read only once: a pipe, standard input. */
  readonly configText?: string;
  readonly overlays: readonly Overlay[];
  readonly concurrency: number;
  readonly log: LogOptions;
  readonly serviceCluster: string;
  readonly serviceNode: string;
  /** Directories of dropped-in packages. */
  readonly filters: readonly string[];
  /** Dropped-in packages that run in the builtin isolate (`--trust`). */
  readonly trusted: readonly string[];
  /** Sandboxed packages that an earlier process hung or ended in. */
  readonly quarantined?: readonly string[];
  readonly strict: boolean;
  readonly fileFlush: FileFlush;
  readonly allowUnknown: boolean;
  /** How long connections may take to finish once their listener or filter chain is gone. */
  readonly drainTimeMs: number;
  /** --drain-strategy immediate */
  readonly drainImmediately: boolean;
  /** How long a proxy that was taken over may take to end. */
  readonly parentShutdownMs: number;
  /** The file that the address of the admin listener is written to; "": none. */
  readonly adminAddressPath: string;
  readonly addressFamily: "v4" | "v6";
  /** Bind beside the proxy that serves this config now, and end that one once this one serves. */
  readonly takeover: boolean;
  /** Started while another process seems to hang: sets everything up, and binds beside that process once it is told to. */
  readonly standby?: boolean;
  /** Another process has served before: what, comes in the message `served`. */
  readonly succeeds?: boolean;
  /** The descriptor of a file for Marks: a process before this one died, and nobody knows inside which filter. Absent: no marks. */
  readonly marks?: number | undefined;
  /** Listening sockets of the process before, which died: open here already, with clients that wait. */
  readonly held?: readonly HeldSocket[];
  /** The socket file where a successor finds this proxy; "": none. */
  readonly controlSocket: string;
  /** Permissions of that file. */
  readonly controlSocketMode: number;
  /** Started by `tsproxy filter dev`: HTTP exchanges are recorded, and the proxy sends DevEvents. */
  readonly dev?: boolean;
  /** Debuggers attach at this port of 127.0.0.1 to the sandboxes of the first worker; 0: any. */
  readonly inspectPort?: number | undefined;
}

/** The Node that runs the proxy. */
export interface Runtime {
  readonly node: string;
  readonly flags: readonly string[];
  /** A process of the proxy that has been started already and waits for its arguments (proxy-start.ts). */
  readonly early?: ChildProcess;
}

/** A terminal's Ctrl-C reaches the proxy directly and again through the supervisor: within this time both are one signal. */
export const SAME_SIGNAL_MS = 300;

/** The options of this proxy process: its first argument, or, if it was started early without them, those in its first message. */
export async function ownOptions(): Promise<RunOptions> {
  own ??= process.argv[2] ? Promise.resolve(process.argv[2]) : toldOptions();
  return JSON.parse(await own) as RunOptions;
}
let own: Promise<string> | undefined;

/** Waits for the `run` message. Ends the process if the supervisor ends before it comes. */
function toldOptions(): Promise<string> {
  return new Promise((resolve) => {
    const onEnd = () => process.exit(1);
    if (process.connected === false) onEnd();
    process.once("disconnect", onEnd);
    process.once("message", ({ args }: Extract<ToProxy, { type: "run" }>) => {
      process.off("disconnect", onEnd);
      resolve(args[0]!);
    });
  });
}

/** Supervisor -> proxy. */
export type ToProxy =
  /** First message to a process that was started early: the arguments that it was started without. */
  | { readonly type: "run"; readonly args: readonly string[] }
  /** A successor serves. Accept no more connections, and end with the last one, or after `ms`. */
  | { readonly type: "retire"; readonly ms: number }
  /** What the process before has served. */
  | { readonly type: "served"; readonly served: Served }
  /** To a standby: bind, and serve. */
  | { readonly type: "serve" };

/** Proxy -> supervisor. */
export type ToSupervisor =
  | { readonly type: "ready" }
  /** A standby is set up and waits for `serve`. */
  | { readonly type: "prepared" }
  /** The proxy was asked to end: however it ends now, it is not started again. */
  | { readonly type: "stopping" }
  | { readonly type: "dev"; readonly event: DevEvent }
  /** The TCP sockets at which it listens now. */
  | { readonly type: "listening"; readonly sockets: readonly ListeningAt[] }
  | { readonly type: "serving"; readonly change: ServedChange }
  /** The main thread may be silent for so long now. */
  | { readonly type: "busy"; readonly ms: number }
  /** A sandbox of this package has taken one of the process's threads along. The process can go on for a while without it. */
  | { readonly type: "lost"; readonly package: string }
  /** After each reload of a process that has quarantined some: those that still are. A mended one is let in by later processes too. */
  | { readonly type: "quarantined"; readonly packages: readonly string[] }
  /** Sent ten times a second: how far each thread has got, and how long it may be silent. */
  | { readonly type: "beat"; readonly threads: readonly ThreadBeat[] };

export interface ThreadBeat {
  readonly name: string;
  /** BEAT.TURNS: grows for as long as the thread does not hang. */
  readonly turns: number;
  /** CPU time that it has used, in milliseconds; 0: unknown. */
  readonly cpuMs?: number;
  /** It waits for something other than a CPU. */
  readonly isAsleep?: boolean;
  /** The sandboxed package that it is inside now. */
  readonly inside?: string | undefined;
  /** Its time box: how long it may be silent now. */
  readonly boxMs: number;
}
