import type { AccessLogList, ExtensionRef, KeepAlive, SandboxManifest } from "@tsproxy/sdk";
import type { StatList } from "./inside/stats.ts";
import type { StatsConfig } from "./stats-config.ts";

/** What a package says of itself, read in the canary (`describe`). Plain JSON. */
export interface PackageInfo {
  /** `kind/folder`: `http/router`; for a dropped-in module `kind/its name`. */
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
  /** A shipped package that lives in an isolate of its own. */
  readonly sandboxed?: boolean;
  /** A SandboxManifest, unchecked. */
  readonly sandbox?: unknown;
  readonly origin: "shipped" | "dropped-in";
  readonly folder: string;
}

/**
 * Words of a thread's beat: turns of its loop; the sandbox that it is inside, on its own thread or on another one; its number, and
 * the CPU that it has had (thread-cpu.ts; 0: unknown).
 */
export const BEAT = { TURNS: 0, INSIDE: 1, ASIDE: 2, THREAD: 3, CPU_MS: 4 } as const;

/** ASCII in memory that all threads share, or the text itself. */
export type SharedCode = Uint8Array | string;
/** The same of any text: UTF-8. */
export type SharedText = SharedArrayBuffer | string;

/** One bundled module. */
export interface ModuleSource {
  readonly package: string;
  /** "builtin", or the sandbox group (the package's own name). */
  readonly group: string;
  readonly code: SharedCode;
  readonly filename: string;
  /** Hash of the code: the same code is the same generation. */
  readonly hash: string;
  /** Of a sandboxed package that has shared cells: their memory, the same in all threads and generations. */
  readonly cells?: SharedArrayBuffer;
  /** Of a sandboxed package: what it may do. */
  readonly manifest?: SandboxManifest;
  /** The process before ended inside this code: it is not entered. */
  readonly quarantined?: boolean;
}

export interface AddressConfig {
  readonly ip: string;
  readonly port: number;
  readonly path?: string;
  readonly ipv4Compat?: boolean;
  /** Of the file of a unix socket. */
  readonly mode?: number;
  /** Datagrams; absent: TCP. */
  readonly udp?: boolean;
}

/**
 * What a listening socket is called: its listener's name, and for an additional address a mark and its number behind it.
 */
export function socketName(listener: string, additional: number): string {
  return additional === 0 ? listener : `${listener}\0${additional}`;
}
export function listenerOf(socket: string): string {
  const mark = socket.indexOf("\0");
  return mark < 0 ? socket : socket.slice(0, mark);
}

export interface CidrConfig {
  readonly address_prefix: string;
  readonly prefix_len: number;
}

/** Envoy's filter_chain_match, the criteria that need no TLS and those that listener filters fill. */
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
  /** Undefined: plain bytes. */
  readonly transport?: ExtensionRef;
  /** From accept to the end of the handshake. */
  readonly transportTimeoutMs?: number;
  readonly filters: readonly ExtensionRef[];
}

/** When a listener filter is left out. */
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
  /** Prefix of its stats behind `listener.`: the address with `:` folded to `_`, or `stat_prefix`. */
  readonly statPrefix: string;
  readonly address: AddressConfig;
  /** Beside `address`. */
  readonly additionalAddresses?: readonly AddressConfig[];
  /** False: no socket; connections come from a listener with `useOriginalDst`. Absent: true. */
  readonly bindToPort?: boolean;
  /** An internal listener: connections come from this isolate, and so much may wait in one of them for either side. */
  readonly internalBufferBytes?: number;
  /** A connection goes to the listener of the address that the client asked for, if there is one. */
  readonly useOriginalDst?: boolean;
  readonly ignoreGlobalConnectionLimit?: boolean;
  /** What all listeners may have together, by the overload manager. Absent: what the runtime says. */
  readonly globalConnectionLimit?: number;
  readonly direction: "UNSPECIFIED" | "INBOUND" | "OUTBOUND";
  /** Absent: DEFAULT. */
  readonly drainType?: "DEFAULT" | "MODIFY_ONLY";
  /** Of kind `listener`, or `udp` where the address is. */
  readonly listenerFilters: readonly ListenerFilterRef[];
  /** UDP: larger datagrams are dropped. */
  readonly maxDatagramBytes?: number;
  /** A line for every connection, when it ends. */
  readonly accessLog?: AccessLogList;
  /** `{ filter_metadata: { … } }` */
  readonly metadata?: unknown;
  /** 0: none. */
  readonly listenerFiltersTimeoutMs: number;
  readonly continueOnListenerFiltersTimeout: boolean;
  readonly filterChains: readonly FilterChainConfig[];
  readonly defaultFilterChain: FilterChainConfig | undefined;
  readonly perConnectionBufferLimitBytes: number;
  readonly backlog: number;
  readonly keepAlive?: KeepAlive;
  /** Where in the user's files it stands (`front.yaml:4:5`), for errors of binding. */
  readonly source: string;
  /** Of all the rest: the same is the same listener. */
  readonly hash?: string;
  /** Which threads accept for it; those of a control service are the control thread's own. Undefined: the workers. */
  readonly thread?: "worker" | "control";
}

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
  /** Absent: workers. */
  readonly runs?: PackageInfo["runs"];
  /** As a listener's. */
  readonly hash?: string;
}

/** Who this proxy is. */
export interface NodeConfig {
  readonly id: string;
  readonly cluster: string;
  readonly locality?: {
    readonly region?: string | undefined;
    readonly zone?: string | undefined;
    readonly sub_zone?: string | undefined;
  };
  readonly metadata?: unknown;
  /** `cluster_manager.local_cluster_name`: the cluster whose members are this proxy and its like. */
  readonly localCluster?: string;
}

/** A configuration after all checks: what workers run. Listeners that services bring along are among them. */
export interface RuntimeConfig {
  readonly listeners: readonly ListenerConfig[];
  /** Cluster manager first: others reach it through `cx.clusters`. */
  readonly services: readonly ServiceConfig[];
  readonly node: NodeConfig;
  /** Layers of the runtime; main alone reads them and tells the threads their values. */
  readonly runtime?: readonly RuntimeLayerConfig[];
  /** `stats_config`, and how often intervals of histograms end; main's alone too. */
  readonly stats?: StatsConfig | undefined;
  readonly statsFlushMs?: number | undefined;
  /** In the place of the proxy's own, as `server.version`. */
  readonly statsVersion?: number | undefined;
}

/** A RuntimeConfig as a thread gets it. */
export interface ThreadConfig {
  /** What the thread's own half asks of its listeners. */
  readonly listeners: readonly {
    readonly name: string;
    readonly backlog: number;
    readonly keepAlive?: KeepAlive | undefined;
    readonly bufferBytes: number;
  }[];
  /** JSON of the RuntimeConfig, with the listeners of this kind of thread; for the isolate. */
  readonly text: SharedText;
}

/** Main -> worker. Every `prepare` is answered by `prepared` or `refused`; nothing changes for traffic before `commit`. */
export type ToWorker =
  | {
      readonly type: "prepare";
      readonly generation: number;
      /** Modules that are new or changed. */
      readonly modules: readonly ModuleSource[];
      /** Packages that are gone. */
      readonly removed: readonly string[];
      /** Undefined: the configuration stays. */
      readonly config: ThreadConfig | undefined;
      /** The canary has set it up: what it has found good need not be looked at again. */
      readonly rehearsed: boolean;
    }
  /** Into the present preparation, what it has brought along: `listeners`, JSON, the nth and following of `config`. Answered as `prepare`. */
  | {
      readonly type: "extend";
      readonly generation: number;
      readonly config: ThreadConfig;
      readonly listeners: string;
      readonly nth: number;
    }
  | { readonly type: "commit"; readonly generation: number }
  | { readonly type: "abort"; readonly generation: number }
  /** Bind these (main has checked that the address is free); answered by `listening`. */
  | {
      readonly type: "listen";
      readonly listeners: readonly { readonly name: string; readonly address: AddressConfig }[];
    }
  /** `text`: JSON of the value. */
  | { readonly type: "publish"; readonly topic: string; readonly text: SharedText }
  | { readonly type: "drain"; readonly ms: number }
  | {
      readonly type: "drain_listeners";
      readonly names: readonly string[];
      readonly ask: boolean;
      readonly stop: boolean;
    }
  /** Begins or ends a profile of this thread, or of a sandbox in it. Answered by `profiled`. */
  | { readonly type: "profile"; readonly enable: boolean; readonly of?: ProfiledFilter }
  /** Of a debugger's session with a sandbox. `text`: the package to open one with, a message for it, or nothing. */
  | {
      readonly type: "inspect";
      readonly session: number;
      readonly action: "open" | "send" | "ready" | "close";
      readonly text: string;
    }
  /** What waits here for files is told now. Answered by `lines_flushed`. */
  | { readonly type: "flush_lines" }
  | {
      readonly type: "reply";
      readonly call: number;
      readonly value: unknown;
      readonly error: string | undefined;
    }
  /** What `image_wanted` has asked for. */
  | { readonly type: "image"; readonly snapshot: ArrayBuffer }
  | { readonly type: "stop" };

/** Why a generation was refused: which package, and where in its config (or in its source) it said no. */
export interface Refusal {
  readonly package: string;
  readonly message: string;
  /** From the package's own config, `ConfigError.path`; "" if none. */
  readonly path: string;
  /** JSON pointer of the use in the RuntimeConfig: `/listeners/0/filterChains/0/filters/0/config`. */
  readonly place: string;
  /** With positions in the bundled module; main maps them back to sources. */
  readonly stack: string;
}

/** `cpu`: where its time goes. `heap`: who allocates what is still there. `snapshot`: all that is there, at the end. */
export type ProfileKind = "cpu" | "heap" | "snapshot";

/** A package that lives in a sandbox, and what is asked about it. */
export interface ProfiledFilter {
  readonly filter: string;
  readonly kind: ProfileKind;
}

/** Worker -> main. */
export type FromWorker =
  /** Nothing has refused so far; `prepared` follows when all that was waited for is there. `brought`: JSON of the listeners that services of this thread bring along. */
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
  /** New names of stats; `cell` is an index into the worker's block. Kinds: counter, gauge, histogram. */
  | {
      readonly type: "stats";
      readonly defined: readonly {
        readonly kind: string;
        readonly name: string;
        readonly unit: string;
        readonly cell: number;
      }[];
      /** Names that show without a cell. */
      readonly listed?: readonly StatList[];
    }
  | {
      readonly type: "log";
      readonly level: "debug" | "info" | "warn" | "error";
      readonly message: string;
      readonly fields: Readonly<Record<string, unknown>>;
    }
  /** The isolates of the thread are gone: what they gauged does not count any more. */
  | { readonly type: "stats_lost" }
  /** From here on the second word of the thread's beat is this number while it is inside this package's sandbox. */
  | { readonly type: "box"; readonly box: number; readonly package: string }
  /** A fault of a package: what happened, how often it has. */
  | {
      readonly type: "fault";
      readonly package: string;
      readonly reason: string;
      readonly stack: string;
      /** Packages whose newest code is to blame for the end of the builtin isolate: this thread runs the code before it again. */
      readonly reverted?: readonly string[];
    }
  /** An operation that main carries out (`core.config`, `core.quit`, …). */
  | { readonly type: "call"; readonly call: number; readonly name: string; readonly args: unknown }
  /** To be appended to a file. `marks`: when the text from some char on was written, [`steadyNow`'s ms, first char, …]. */
  | {
      readonly type: "lines";
      readonly path: string;
      readonly text: string;
      readonly marks: readonly number[];
    }
  | { readonly type: "inspected"; readonly session: number; readonly text: string }
  /** A session is bound to another isolate, whose module has that name in stacks. Answered by `inspect`, `ready`. */
  | { readonly type: "inspect_bound"; readonly session: number; readonly filename: string }
  | { readonly type: "lines_flushed" }
  | { readonly type: "drained" }
  /** A snapshot of what sandboxes begin with; told to whoever started the thread, and answered by it. */
  | { readonly type: "image_wanted" }
  /** `profile`: JSON as DevTools opens it; "" when one has begun. */
  | {
      readonly type: "profiled";
      readonly profile: string;
      readonly error: string | undefined;
    };

/** How connections of a listener or chain that is gone leave. */
export interface DrainOptions {
  /** They may finish for so long. */
  readonly ms: number;
  /** Envoy's --drain-strategy: all are asked to leave at once, or the more of them the more of that time has passed. */
  readonly immediate: boolean;
}

/** What core itself puts into isolates. */
export interface PreludeCode {
  readonly builtin: SharedCode;
  /** The SDK beside it, without schemas. */
  readonly builtinSdk: SharedCode;
  /** A script, with the SDK in it; the others are modules. */
  readonly sandbox: SharedCode;
}

/** `workerData` of a worker. */
export interface WorkerStart {
  readonly role: "worker" | "control";
  readonly index: number;
  /** Base64; the same for all threads of the process: what their TLS session tickets are sealed with. */
  readonly secret: string;
  /** Bundled prelude and SDK. */
  readonly prelude: PreludeCode;
  /** Stats cells (Float64Array) of this worker. */
  readonly stats: SharedArrayBuffer;
  /** Counts that all threads share (Int32Array). */
  readonly turns: SharedArrayBuffer;
  /** Counts with limits (core/inside/shared-counts.ts), and what this thread holds of them. */
  readonly counts: SharedArrayBuffer;
  readonly ledger: SharedArrayBuffer;
  /** Beats (Int32Array): [turns, package index about to be entered + 1 or 0, milliseconds at entry]. */
  readonly beat: SharedArrayBuffer;
  readonly sizes: {
    readonly events: number;
    readonly commands: number;
    readonly segments: number;
    readonly slots: number;
  };
  /** --file-flush-interval-msec */
  readonly fileFlushMs?: number | undefined;
  readonly node: NodeConfig & { readonly address?: string };
  readonly drain: DrainOptions;
}
