import type {
  AccessLogList,
  ExtensionRef,
  KeepAlive,
  RuntimeValue,
  SandboxManifest,
} from "@tsproxy/sdk";
import type { StatsConfig } from "./admin/stats-config.ts";
import type { StatList, StatReturn } from "./inside/stats.ts";

/** What a package's definition says of itself, as the describer has read it (describe.ts). Plain JSON. */
export interface PackageInfo {
  /** The package's name. Shipped: `kind/folder` (`http/router`); dropped-in: `kind/` and its own name. */
  readonly package: string;
  readonly kind: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly types: readonly string[];
  readonly terminal: boolean;
  readonly runs: "workers" | "control" | "everywhere";
  readonly section: string | undefined;
  /** JSON Schema with the SDK's own keywords: `extension` (a kind), `duration`. */
  readonly schema: unknown;
  readonly routeSchema: unknown;
  /** True: a shipped package that runs in a sandbox. */
  readonly sandboxed?: boolean;
  /** A SandboxManifest, unchecked. */
  readonly sandbox?: unknown;
  readonly origin: "shipped" | "dropped-in";
  readonly folder: string;
}

/**
 * Words of a thread's beat. TURNS: ticks of its 100 ms timer and entries into sandboxes; INSIDE, ASIDE: the number of the sandbox
 * that it is inside, or that runs for it on another thread (0: none); THREAD, CPU_MS: its system id and CPU time (thread-cpu.ts;
 * 0: unknown, or not yet), and SAMPLED: `clockMs()` of when that was read; MOST_MS, written by main: how long a call into one of
 * its isolates may take, if that may be longer anyway (0: no such limit).
 */
export const BEAT = {
  TURNS: 0,
  INSIDE: 1,
  ASIDE: 2,
  THREAD: 3,
  CPU_MS: 4,
  MOST_MS: 5,
  SAMPLED: 6,
} as const;

/** A module's code, in ASCII: bytes in memory that all threads share, or a string. */
export type SharedCode = Uint8Array | FiledCode | string;
/** Code that whoever needs it first reads from an open file into memory that all threads share (packages/filed-code.ts). */
export interface FiledCode {
  readonly file: CodeFile;
  /** Where it begins in the file. */
  readonly at: number;
  /** Empty until `state[0]` is 1. */
  readonly bytes: Uint8Array;
  readonly state: Int32Array;
}
export interface CodeFile {
  readonly fd: number;
  readonly path: string;
  /** When it had been written last as it was opened. */
  readonly mtimeMs: number;
}
/** Any text: UTF-8 in memory that all threads share, or a string. */
export type SharedText = SharedArrayBuffer | string;

/** One bundled module. */
export interface ModuleSource {
  readonly package: string;
  /** Where it runs: `builtin`, or a sandbox, named by the package. */
  readonly group: string;
  readonly code: SharedCode;
  readonly filename: string;
  /** Hash of the code. A module whose hash is the same is not replaced. */
  readonly hash: string;
  /** It comes with the proxy: what V8 makes of it is kept (compiled-code.ts). */
  readonly isShipped?: boolean;
  /** Memory of a sandboxed package's shared cells, the same for all threads and generations. Undefined: it has none. */
  readonly cells?: SharedArrayBuffer;
  /** What a sandboxed package may do. */
  readonly manifest?: SandboxManifest;
  /** An earlier process hung or ended inside this code, so it is not entered. */
  readonly quarantined?: boolean;
}

export interface AddressConfig {
  readonly ip: string;
  readonly port: number;
  readonly path?: string;
  readonly ipv4Compat?: boolean;
  /** File mode of a unix socket. */
  readonly mode?: number;
  /** True: UDP. */
  readonly udp?: boolean;
}

export interface ToListen {
  readonly name: string;
  readonly address: AddressConfig;
  /** A listening socket at that address, which this thread is to open. Absent: it binds one. */
  readonly fd?: number | undefined;
}

/** The name of a listening socket: its listener's name; for an additional address followed by NUL and its number. */
export function socketName(listener: string, additional: number): string {
  return additional === 0 ? listener : `${listener}\0${additional}`;
}
/** The listener's name in a socket's name. */
export function listenerOf(socket: string): string {
  const mark = socket.indexOf("\0");
  return mark < 0 ? socket : socket.slice(0, mark);
}
/** The number of the address in a socket's name; 0: the listener's own. */
export function socketNumber(socket: string): number {
  const mark = socket.indexOf("\0");
  return mark < 0 ? 0 : Number(socket.slice(mark + 1));
}

export interface CidrConfig {
  readonly address_prefix: string;
  readonly prefix_len: number;
}

/** Envoy's `filter_chain_match`. */
export interface FilterChainMatchConfig {
  readonly destination_port?: number;
  readonly prefix_ranges?: readonly CidrConfig[];
  readonly server_names?: readonly string[];
  readonly transport_protocol?: string;
  readonly application_protocols?: readonly string[];
  readonly direct_source_prefix_ranges?: readonly CidrConfig[];
  readonly source_type?: "ANY" | "SAME_IP_OR_LOOPBACK" | "EXTERNAL";
  readonly source_prefix_ranges?: readonly CidrConfig[];
  readonly source_ports?: readonly number[];
}

export interface FilterChainConfig {
  readonly metadata?: unknown;
  readonly name: string;
  readonly match: FilterChainMatchConfig;
  /** The transport socket. Undefined: plaintext. */
  readonly transport?: ExtensionRef;
  /** Most milliseconds from accept to the end of the handshake. */
  readonly transportTimeoutMs?: number;
  readonly filters: readonly ExtensionRef[];
}

/** Envoy's `filter_disabled`: where it matches a connection, the listener filter is left out. */
export interface ListenerPredicate {
  readonly any_match?: boolean;
  readonly destination_port_range?: { readonly start: number; readonly end: number };
  readonly not_match?: ListenerPredicate;
  readonly or_match?: { readonly rules: readonly ListenerPredicate[] };
  readonly and_match?: { readonly rules: readonly ListenerPredicate[] };
}
export type ListenerFilterRef = ExtensionRef & { readonly filter_disabled?: ListenerPredicate };

export interface ListenerConfig {
  readonly name: string;
  /** Its stats are named `listener.` and this: `stat_prefix`, or the address with `_` for `:`. */
  readonly statPrefix: string;
  readonly address: AddressConfig;
  /** Addresses that it listens on beside `address`. */
  readonly additionalAddresses?: readonly AddressConfig[];
  /** False: no socket; connections come from a listener with `useOriginalDst`. Absent: true. */
  readonly bindToPort?: boolean;
  /** Set on an internal listener, whose connections come from the same isolate: bytes that may wait in one for each side. */
  readonly internalBufferBytes?: number;
  /** True: hands each connection to the listener of its original destination address, if there is one. */
  readonly useOriginalDst?: boolean;
  readonly ignoreGlobalConnectionLimit?: boolean;
  /** The overload manager's limit for the connections of all listeners together. Absent: the runtime's. */
  readonly globalConnectionLimit?: number;
  readonly direction: "UNSPECIFIED" | "INBOUND" | "OUTBOUND";
  /** Absent: DEFAULT. */
  readonly drainType?: "DEFAULT" | "MODIFY_ONLY";
  /** Filters of kind `listener`, or of kind `udp` if the address is UDP. */
  readonly listenerFilters: readonly ListenerFilterRef[];
  /** Of UDP: larger datagrams are dropped. */
  readonly maxDatagramBytes?: number;
  /** Access loggers for connections; each is logged when it ends. */
  readonly accessLog?: AccessLogList;
  /** `{ filter_metadata: { … } }` */
  readonly metadata?: unknown;
  /** 0: no timeout. */
  readonly listenerFiltersTimeoutMs: number;
  readonly continueOnListenerFiltersTimeout: boolean;
  readonly filterChains: readonly FilterChainConfig[];
  readonly defaultFilterChain: FilterChainConfig | undefined;
  readonly perConnectionBufferLimitBytes: number;
  readonly backlog: number;
  readonly keepAlive?: KeepAlive;
  /** Its place in the user's files (`front.yaml:4:5`), for errors of binding. */
  readonly source: string;
  /** Hash of all other members. A listener whose hash is the same is kept as it is. */
  readonly hash?: string;
  /** Which threads accept for it. `control`: a listener that a service brings along, such as admin's. Undefined: the workers. */
  readonly thread?: "worker" | "control";
}

export type RuntimeValues = readonly (readonly [key: string, value: RuntimeValue])[];

/** One layer of the bootstrap's `layered_runtime`. */
export interface RuntimeLayerConfig {
  readonly name: string;
  readonly static_layer?: Readonly<Record<string, unknown>>;
  readonly disk_layer?: {
    readonly symlink_root: string;
    readonly subdirectory: string;
    readonly append_service_cluster: boolean;
  };
  readonly admin_layer?: object;
}

export interface ServiceConfig {
  readonly package: string;
  readonly config: unknown;
  /** Absent: `workers`. */
  readonly runs?: PackageInfo["runs"];
  /** As a listener's hash. */
  readonly hash?: string;
}

/** What the proxy tells about itself: Envoy's `node`. */
export interface NodeConfig {
  readonly id: string;
  readonly cluster: string;
  readonly locality?: {
    readonly region?: string | undefined;
    readonly zone?: string | undefined;
    readonly sub_zone?: string | undefined;
  };
  readonly metadata?: unknown;
  /** `cluster_manager.local_cluster_name`: the cluster that this proxy and its peers are members of. */
  readonly localCluster?: string;
}

/** A configuration after all checks, as threads run it, with the listeners that services bring along. */
export interface RuntimeConfig {
  readonly listeners: readonly ListenerConfig[];
  /** The cluster manager comes first, since others reach it through `cx.clusters`. */
  readonly services: readonly ServiceConfig[];
  readonly node: NodeConfig;
  /** Layers of the runtime. Only main reads them; it publishes their values to the threads. */
  readonly runtime?: readonly RuntimeLayerConfig[];
  /** What the layers said when the config was loaded, for canaries, to which nothing is published. */
  readonly loadedRuntime?: RuntimeValues;
  /** `stats_config`, and milliseconds of a histogram interval. Only main reads them. */
  readonly stats?: StatsConfig | undefined;
  readonly statsFlushMs?: number | undefined;
  /** `stats_server_version_override`: shown as `server.version`. */
  readonly statsVersion?: number | undefined;
}

/** A RuntimeConfig as a thread gets it. */
export interface ThreadConfig {
  /** What the thread itself, outside its isolate, needs to know of the listeners. */
  readonly listeners: readonly {
    readonly name: string;
    /** The number of addresses that it is bound to. */
    readonly sockets: number;
    readonly backlog: number;
    readonly keepAlive?: KeepAlive | undefined;
    readonly bufferBytes: number;
  }[];
  /** For the isolate: JSON of the RuntimeConfig, with the listeners of this thread's role only. */
  readonly text: SharedText;
}

/** Main -> thread. `prepare` is answered by `staged` and `prepared`, or by `refused`; traffic sees no change before `commit`. */
export type ToWorker =
  /** The first message to a thread, which waits for it. */
  | { readonly type: "start"; readonly start: WorkerStart }
  | {
      readonly type: "prepare";
      readonly generation: number;
      /** Modules that are new or changed. */
      readonly modules: readonly ModuleSource[];
      /** Packages that no longer exist. */
      readonly removed: readonly string[];
      /** Undefined: the configuration stays. */
      readonly config: ThreadConfig | undefined;
      /** The canary has set the change up, or does so now: the thread need not set parts up only to check them. */
      readonly rehearsed: boolean;
    }
  /**
   * Adds the listeners that services bring along to the change being prepared. `listeners`: JSON of those of `config` from the
   * nth on. Answered as `prepare`.
   */
  | {
      readonly type: "extend";
      readonly generation: number;
      readonly config: ThreadConfig;
      readonly listeners: string;
      readonly nth: number;
    }
  | { readonly type: "commit"; readonly generation: number }
  | { readonly type: "abort"; readonly generation: number }
  /** Binds these addresses. Answered by `listening` or `listen_failed`. */
  | {
      readonly type: "listen";
      readonly listeners: readonly ToListen[];
    }
  /** `fd`: one end of a socket pair (Gathering). Worker 0 takes connections from it; another worker passes its own on. */
  | { readonly type: "take_from" | "give_through"; readonly fd: number }
  /** `text`: JSON of the value; "": it is taken back. */
  | { readonly type: "publish"; readonly topic: string; readonly text: SharedText }
  | { readonly type: "drain"; readonly ms: number }
  | {
      readonly type: "drain_listeners";
      readonly names: readonly string[];
      readonly ask: boolean;
      readonly stop: boolean;
    }
  /** Starts or ends a profile of this thread, or of a sandbox in it. Answered by `profiled`. */
  | { readonly type: "profile"; readonly enable: boolean; readonly of: Profiled }
  /** For a debugger's session with a sandbox. `text`: to `open`, the package; to `send`, a protocol message; else "". */
  | {
      readonly type: "inspect";
      readonly session: number;
      readonly action: "open" | "send" | "ready" | "close";
      readonly text: string;
    }
  /** Asks for the log lines that wait in the thread. Answered by `lines`, and then `lines_flushed`. */
  | { readonly type: "flush_lines" }
  | {
      readonly type: "reply";
      readonly call: number;
      readonly value: unknown;
      readonly error: string | undefined;
    }
  /** What a thread or process before has served, of ServedFiles. Before the first `prepare`. */
  | { readonly type: "files"; readonly text: SharedText }
  /** Files that have changed; those that this thread does not watch are not for it. */
  | { readonly type: "files_found"; readonly files: readonly FoundFile[] }
  /** The answer to `image_wanted`. */
  | { readonly type: "image"; readonly snapshot: ArrayBuffer }
  | { readonly type: "stop" };

/** A file that some thread watches, as main has found it (FileLook). */
export interface FoundFile {
  readonly path: string;
  /** Its fingerprint. */
  readonly seen: string;
  /** Absent: it cannot be read, and who reads it finds out why. */
  readonly bytes?: Uint8Array | undefined;
}

/** Why a generation was refused: by which package, and at which place of its config or its source. */
export interface Refusal {
  readonly package: string;
  readonly message: string;
  /** The path inside the package's config (`ConfigError.path`); "" if there is none. */
  readonly path: string;
  /** JSON pointer to the package's config in the RuntimeConfig: `/listeners/0/filterChains/0/filters/0/config`. */
  readonly place: string;
  /** The error's stack. Its positions are in the bundled module; main maps them to the sources. */
  readonly stack: string;
  /** The code did not come back: the isolate was stopped in it, which takes seconds. */
  readonly stopped?: boolean;
}

/** `cpu`: where CPU time is spent. `heap`: which code allocates how much. `snapshot`: the whole heap, at the end. */
export type ProfileKind = "cpu" | "heap" | "snapshot";

/** What a profile is taken of, and its kind. */
export interface Profiled {
  /** The package whose sandbox it is taken of. Absent: the thread, which has no snapshot. */
  readonly filter?: string;
  readonly kind: ProfileKind;
  /** It has no sandbox: the snapshot is one of the isolate that the shipped packages share. */
  readonly isShared?: boolean;
}

/** Thread -> main. */
export type FromWorker =
  /**
   * Nothing has refused so far; `prepared` follows once the setup waits for nothing more. `brought`: JSON of the listeners that
   * services of this thread bring along.
   */
  | { readonly type: "staged"; readonly generation: number; readonly brought: string }
  | { readonly type: "prepared"; readonly generation: number }
  | { readonly type: "refused"; readonly generation: number; readonly refusals: readonly Refusal[] }
  | { readonly type: "committed"; readonly generation: number }
  | {
      readonly type: "listening";
      readonly listeners: readonly { readonly name: string; readonly address: AddressConfig }[];
    }
  | {
      readonly type: "listen_failed";
      readonly name: string;
      readonly code: string;
      readonly message: string;
    }
  /** `text`: JSON of the value. */
  | { readonly type: "publish"; readonly topic: string; readonly text: string }
  /** Of the first worker: its ServedFiles are others. */
  | { readonly type: "files"; readonly text: string }
  /** A reader watches the file from now on. `seen`: the fingerprint of what it has. */
  | { readonly type: "watch_file"; readonly path: string; readonly seen: string }
  | { readonly type: "unwatch_file"; readonly path: string }
  /** New names of stats. `kind`: counter, gauge or histogram; `cell`: index into the thread's stats memory. */
  | {
      readonly type: "stats";
      readonly defined: readonly {
        readonly kind: string;
        readonly name: string;
        readonly unit: string;
        readonly cell: number;
      }[];
      /** The sandboxed package that has defined them. Absent or "": the proxy itself. */
      readonly owner?: string;
      /** Scopes whose stats are shown as 0 until they are defined. */
      readonly listed?: readonly StatList[];
      /** Stats that are gone, from before those above were defined. */
      readonly returned?: StatReturn;
    }
  | {
      readonly type: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
      /** True: no other thread logs this event, so each line is printed. Else a line is not repeated within a second. */
      readonly single?: boolean;
    }
  /** The isolates of the thread are gone: their gauges count no more. */
  | { readonly type: "stats_lost" }
  /** A busy time is over, and what it has left in this thread is collected. */
  | { readonly type: "rested" }
  /** From now on the number `box` in the thread's beat (BEAT.INSIDE, BEAT.ASIDE) means this package's sandbox. */
  | { readonly type: "box"; readonly box: number; readonly package: string }
  /** A fault of a package: its isolate was stopped or lost, or a hook threw. */
  | {
      readonly type: "fault";
      readonly package: string;
      readonly reason: string;
      readonly stack: string;
      /** The use that it is charged to, and `path`, its per-route config, as in a Refusal. Absent: nobody knows. */
      readonly place?: string;
      readonly path?: string;
      /** That use, or the whole package, is in its failure policy for so long. */
      readonly openMs?: number;
      /** Packages whose newest code ended the builtin isolate: this thread runs their previous code again. */
      readonly reverted?: readonly string[];
    }
  /** A thread on which this package's sandbox ran will never come back (SandboxLost). */
  | { readonly type: "lost"; readonly package: string }
  /** Asks main for an operation (`core.config`, `core.quit`, …). Answered by `reply`. */
  | { readonly type: "call"; readonly call: number; readonly name: string; readonly args: unknown }
  /** Bytes to append to a file; none only create it. `marks`: [time in ms of `steadyNow`, index of the first byte of then, …]. */
  | {
      readonly type: "lines";
      readonly path: string;
      readonly bytes: Uint8Array | LentBytes;
      readonly marks: readonly number[];
    }
  /** A protocol message for the debugger of a session. */
  | { readonly type: "inspected"; readonly session: number; readonly text: string }
  /** A session now debugs a new isolate, whose module has this name in stacks. Answered by `inspect` with the action `ready`. */
  | { readonly type: "inspect_bound"; readonly session: number; readonly filename: string }
  | { readonly type: "lines_flushed" }
  | { readonly type: "drained" }
  /** Asks for the V8 snapshot that sandboxes start from. threads.ts answers with `image`. */
  | { readonly type: "image_wanted" }
  /** `profile`: JSON as DevTools opens it; "" if a profile was started. */
  | {
      readonly type: "profiled";
      readonly profile: string;
      readonly error: string | undefined;
    };

/** How connections are drained whose listener or filter chain is gone. */
export interface DrainOptions {
  /** Milliseconds that they may take to finish. */
  readonly ms: number;
  /** Envoy's `--drain-strategy`. True: all are asked to close at once. False: ever more of them as the time passes. */
  readonly immediate: boolean;
}

/** Core's own code for isolates. */
export interface PreludeCode {
  readonly builtin: SharedCode;
  /** The SDK for the builtin isolate, without schemas. */
  readonly builtinSdk: SharedCode;
  /** What compiles regexes, for a builtin isolate that needs any (inside/regexes.ts). */
  readonly regex: SharedCode;
  /** The SDK and core's part of a sandbox, as one script; the other two are modules. */
  readonly sandbox: SharedCode;
}

/** What a thread needs to start: its role, its code, its limits, and the memory that it shares with main and other threads. */
export interface WorkerStart {
  readonly role: "worker" | "control";
  readonly index: number;
  /** A number that no thread of the process has had: its isolates' numbers begin with it. */
  readonly thread: number;
  /** Base64, the same for all threads: the keys of TLS session tickets are derived from it. */
  readonly secret: string;
  readonly prelude: PreludeCode;
  /** Stats cells (Float64Array) of this thread. */
  readonly stats: SharedArrayBuffer;
  /** `cx.turns` counters (Int32Array), then the cell heap; shared by all threads. */
  readonly turns: SharedArrayBuffer;
  /** The counts that all threads share (core/inside/shared-counts.ts), and how many of each this thread holds. */
  readonly counts: SharedArrayBuffer;
  readonly ledger: SharedArrayBuffer;
  /** For lines of files (core/logs/line-buffer.ts). */
  readonly lines: SharedArrayBuffer;
  /** The thread's beat (Int32Array): see BEAT. */
  readonly beat: SharedArrayBuffer;
  /** The memory that the workers' Gatherings share. */
  readonly gathering: SharedArrayBuffer;
  /** RunOptions.marks */
  readonly marks?: number | undefined;
  /** Sizes of the ring's parts (inside/ring.ts). */
  readonly sizes: {
    readonly events: number;
    readonly commands: number;
    readonly segments: number;
    readonly slots: number;
  };
  readonly fileFlush?: FileFlush | undefined;
  readonly node: NodeConfig & { readonly address?: string };
  readonly drain: DrainOptions;
}

/** When the lines that wait for a file are written. */
export interface FileFlush {
  /** Milliseconds after the first of them: `--file-flush-interval-msec`. */
  readonly ms: number;
  /** When so many have gathered: `--file-flush-min-size-kb`. */
  readonly bytes: number;
}

/** A part of a thread's line memory (core/logs/line-buffer.ts). */
export interface LentBytes {
  readonly at: number;
  readonly size: number;
}

/** Envoy's defaults. */
export const FILE_FLUSH: FileFlush = { ms: 10_000, bytes: 64 * 1024 };
