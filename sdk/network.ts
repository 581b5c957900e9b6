import type { Chunk, Output } from "./bytes.ts";
import type { SetupContext, Slot } from "./extension.ts";
import type { StreamInfo } from "./http.ts";
import type { Gauge } from "./stats.ts";
import type { TlsInfo, TransportFactory, TransportOptions } from "./transport.ts";

/**
 * An IP address and port, or a unix socket (`path`; a leading `@` is the abstract namespace), or an internal listener of this
 * proxy (`path`, made by `internalAddress`).
 */
export interface Address {
  readonly ip: string;
  readonly port: number;
  readonly path?: string;
}

/** Envoy's scheme for internal addresses. */
const INTERNAL = "envoy://";

/** The address of an internal listener. `endpointId` tells apart endpoints that lead to the same listener. */
export function internalAddress(listener: string, endpointId = ""): Address {
  return { ip: "", port: 0, path: `${INTERNAL}${listener}/${endpointId}` };
}

/** Undefined: the address is not an internal one. */
export function readInternalAddress(
  address: Pick<Address, "path">,
): { readonly listener: string; readonly endpointId: string } | undefined {
  const { path } = address;
  if (path?.startsWith(INTERNAL) !== true) return undefined;
  const slash = path.lastIndexOf("/");
  return { listener: path.slice(INTERNAL.length, slash), endpointId: path.slice(slash + 1) };
}

/** `192.0.2.1:80`, `[2001:db8::1]:80`, or the path of a Unix socket. */
export function formatAddress(address: Address): string {
  if (address.path !== undefined) return address.path;
  return address.ip.includes(":")
    ? `[${address.ip}]:${address.port}`
    : `${address.ip}:${address.port}`;
}

/** Why a connection is gone. `error` is the socket's own word (`ECONNRESET`), if it had one. */
export interface CloseEvent {
  readonly by: "remote" | "local";
  readonly phase: "connecting" | "connected";
  readonly timeout: boolean;
  readonly error: string | undefined;
  /** Why the transport gave the connection up (a TLS handshake that failed), in Envoy's words. */
  readonly transportFailure?: string;
}

/** One socket, either direction. All methods may be called after it has closed; then they do nothing. */
export interface Connection {
  readonly id: number;
  readonly remoteAddress: Address;
  readonly localAddress: Address;
  readonly open: boolean;
  /** What the TLS handshake has agreed on; absent before it is done, and without TLS. */
  readonly tls?: TlsInfo | undefined;
  /** The TLS version (`TLSv1.3`) of a handshake that has begun, for logs of handshakes that fail. */
  readonly tlsVersion?: string | undefined;
  /** Moments of a connection that this proxy opened, on the clock of `cx.now()`; -1: it has not come. Absent: not known. */
  readonly connectBegin?: number;
  readonly connectEnd?: number;
  readonly handshakeEnd?: number;
  /** More waits to be sent than the high watermark allows; `onDrained` tells when it has gone. */
  readonly blocked: boolean;
  /** `end` was called. */
  readonly ended: boolean;
  /** Bytes read and written, for access logs. */
  readonly bytesReceived: number;
  readonly bytesSent: number;
  /**
   * From now on `gauge` counts the bytes that were written here and that the kernel has not taken yet, instead of the gauge that did.
   * Absent in a sandbox.
   */
  countUnsent?(gauge: Gauge): void;
  /** Lends room for `size` bytes, which `commit` sends. Nothing else may be written between the two. */
  reserve(size: number): Output;
  commit(output: Output): void;
  /**
   * Sends a range of lent memory. Bytes of the event in hand are forwarded where they lie; others are copied. The caller may
   * reuse the memory when this returns.
   */
  write(memory: Uint8Array, at: number, end: number): void;
  /** Sends FIN after all that was written; reading goes on. */
  end(): void;
  /** `flush`: after what was written. `abort`: at once. `reset`: at once, with RST. */
  close(how: "flush" | "abort" | "reset"): void;
  /**
   * Sends what was written and FIN, then drops what still arrives, and closes when the peer does or after `ms` (Envoy's delayed
   * close).
   */
  closeDelayed(ms: number): void;
  /** Reading stops while pauses outnumber resumes. */
  pause(): void;
  resume(): void;
  /** Calls `handler.onAgain` in a later turn: a way to yield after much synchronous work. */
  again(): void;
  /** What `NetworkChain.relay` asks of the connection that it is given. Absent: its bytes cannot be relayed. */
  relayWith?(other: Connection): Relay | undefined;
}

/**
 * Two connections that core passes bytes between, from the one to the other and back, as fast as the slower side takes them. It ends
 * when one of the two closes.
 */
export interface Relay {
  /** Calls `onRelayed` of both sides now. It is called once a second without, and before either side's `onClosed`. */
  settle(): void;
}

/** The owner of a connection: whoever opened it, or the terminal filter of a downstream one. */
export interface ConnectionHandler {
  onConnected?(): void;
  /** Called once a read. The chunk is lent. */
  onData(chunk: Chunk): void;
  /**
   * So many `bytes` of this connection have been relayed since it was told last. If there are any, `size` is that of the last read,
   * which came at `at` on the clock of `cx.now()`.
   */
  onRelayed?(bytes: number, size: number, at: number): void;
  /** The peer sent FIN. */
  onEof(): void;
  onClosed(event: CloseEvent): void;
  onBlocked?(): void;
  onDrained?(): void;
  onAgain?(): void;
}

/** The kernel asks a silent peer whether it is still there. Linux's own figures: 7200 s, 75 s, 9. */
export interface KeepAlive {
  /** Silence before the first probe. */
  readonly idleS: number;
  readonly intervalS: number;
  /** So many without an answer, and the connection is reset. */
  readonly probes: number;
}

/** How `cx.connect` connects. */
export interface ConnectOptions {
  /** 0: none. */
  readonly timeoutMs: number;
  readonly keepAlive?: KeepAlive | undefined;
  /** `onConnected` comes when the transport is ready. Absent: plain bytes. */
  readonly transport?: Slot<TransportFactory> | undefined;
  readonly transportOptions?: TransportOptions | undefined;
  /** The high watermark, in bytes that wait to be sent. It can only lower core's own. */
  readonly bufferBytes?: number | undefined;
  /** The address to connect from. */
  readonly bind?: Address | undefined;
  /** `onClosed` comes when the socket has closed, not in the turn that closes it: for who counts what the peer may see. */
  readonly awaitsClose?: boolean | undefined;
}

/** A connection that a listener accepted, as its network filters see it. */
export interface DownstreamConnection extends Connection {
  readonly listener: {
    readonly name: string;
    readonly statPrefix: string;
    readonly direction: "UNSPECIFIED" | "INBOUND" | "OUTBOUND";
    /** MODIFY_ONLY: `/healthcheck/fail` does not make the listener ask clients to leave. Absent: DEFAULT. */
    readonly drainType?: "DEFAULT" | "MODIFY_ONLY";
    /** `{ filter_metadata: { … } }` */
    readonly metadata?: unknown;
    readonly perConnectionBufferLimitBytes?: number;
  };
  /** When it was accepted, epoch milliseconds. */
  readonly startTime: number;
  /** Set by listener filters (TLS inspector, PROXY protocol); "" when nobody did. */
  readonly transportProtocol: string;
  readonly serverName: string;
  readonly applicationProtocols: readonly string[];
  /** Fingerprints of the client's TLS by the TLS inspector, where its config asks for them. */
  readonly ja3Fingerprint?: string | undefined;
  readonly ja4Fingerprint?: string | undefined;
  /** Its transport socket encrypts; true before the handshake is done. */
  readonly secure?: boolean;
  /** True: a listener filter has set `localAddress` to where the client wanted to go. */
  readonly localAddressRestored?: boolean;
  /** The socket's own peer, whatever a PROXY header said. Absent: `remoteAddress`. */
  readonly directAddress?: Address;
  /** Where the socket was accepted, whatever a listener filter has found. Absent: `localAddress`. */
  readonly directLocalAddress?: Address | undefined;
  /** What listener filters have left for access logs, filters and upstream transports, by namespace. */
  readonly metadata?: ReadonlyMap<string, Record<string, unknown>> | undefined;
  /** Puts these values into a namespace of `metadata`. */
  setMetadata?(namespace: string, values: Record<string, unknown>): void;
  /**
   * Objects that network filters keep for as long as the connection (`%FILTER_STATE(key)%`), by key. The connection's requests see
   * them too. Absent: there are none.
   */
  readonly filterState?: ReadonlyMap<string, unknown> | undefined;
  setFilterState?(key: string, value: unknown): void;
  /** Why a filter closes the connection, for access logs (`%CONNECTION_TERMINATION_DETAILS%`). */
  terminationDetails?: string | undefined;
  /** The response flag of a filter that closes the connection, for the access logs of those that would have served it. */
  responseFlag?: string | undefined;
  /** `name` of the filter chain. */
  readonly filterChainName?: string;
  /** `metadata` of the filter chain. */
  readonly filterChainMetadata?: unknown;
  /**
   * Set by a filter that knows more of the connection than its socket tells (its cluster, its bytes), for the listener's access
   * logs.
   */
  describedBy?: { describe(): Partial<StreamInfo> } | undefined;
  /** True once the listener drains: finish, take nothing new. */
  readonly draining: boolean;
}

/** A drain of a listener: its clients are asked to leave, now or one after the other. */
export interface Drain {
  /** All of them now. */
  readonly immediate: boolean;
  /** Asked for each response: true if it is to be its connection's last. */
  closes(): boolean;
  /**
   * In how many milliseconds a connection that has had no such response should begin to leave. `graceMs`: how long that takes it.
   * Undefined: never, for there is no time for it.
   */
  leavesIn?(graceMs: number): number | undefined;
}

/**
 * What a hook of a network filter answers.
 * - Nothing: go on.
 * - `stop`: later filters do not see this now; `resumeReading` passes on what was kept.
 * - A promise: as `stop`, until it settles. Bytes that it brings from `onData` or `onWrite` replace the chunk. A rejection closes
 *   the connection, and so does a promise that is pending for 300 s, or for 10 s in a sandbox.
 */
export type NetworkResult = void | typeof stop | Promise<void | Uint8Array | typeof stop>;
/** A hook keeps the chain where it is until `resumeReading`, or drops what it was asked about on its way to the client. */
export const stop = Symbol.for("tsproxy.stop");

/** The object that a package makes for each connection, with the hooks that it needs. */
export interface NetworkFilter {
  onConnect?(): NetworkResult;
  /** Bytes from the client, in order. `endStream`: it sent FIN (the chunk may be empty then). */
  onData?(chunk: Chunk, endStream: boolean): NetworkResult;
  /**
   * Bytes on their way to the client, whoever wrote them; the last filter of the chain sees them first. `endStream`: FIN follows
   * (the chunk may be empty then). `chunk.replace` sends other bytes instead. After `stop` they go no further: the filter may
   * send them later (`chain.injectWrite`). While a promise is pending, what is written later waits too.
   */
  onWrite?(chunk: Chunk, endStream: boolean): NetworkResult;
  /** The listener drains, or a filter of this connection has newer code: ask the client to leave. */
  onDrain?(drain: Drain): void;
  /** Other packages have changed: extensions that this filter uses may have newer code now. */
  onPackagesChanged?(): void;
  onBlocked?(): void;
  onDrained?(): void;
  onAgain?(): void;
  /** Of the filter that has called `NetworkChain.relay`: as of ConnectionHandler. */
  onRelayed?(bytes: number, size: number, at: number): void;
  /** Exactly once. */
  onClose?(event: CloseEvent): void;
}

/** What a network package's setup returns. */
export interface NetworkFilterFactory {
  create(connection: DownstreamConnection, chain: NetworkChain): NetworkFilter;
  /**
   * Its filters keep nothing of their own from one hook to the next, and never answer `stop`. When the sandbox is lost, because another
   * connection's hook never returned, their connections go on with new filters, whose `onConnect` is not called; those of others close.
   */
  readonly stateless?: boolean;
  /**
   * Offers another config to connections that are already open. The function that is returned puts it into effect, and nothing
   * may change before it is called. Undefined: not possible; the connections drain.
   */
  reconfigure?(config: unknown, cx: SetupContext): (() => void) | undefined;
}

/** What a network filter can do to the chain that it is part of. */
export interface NetworkChain {
  /** After `stop` of `onConnect` or `onData`: the next filters get what was kept. */
  resumeReading(): void;
  /**
   * Sends bytes to the client past this filter and those behind it: `onWrite` of those before it still sees them. In `onWrite`
   * they go before the chunk in hand. `endStream`: FIN follows.
   */
  injectWrite(bytes: Uint8Array, endStream?: boolean): void;
  /**
   * The last filter of the chain hands over the connection and an established one to an upstream: from now on core writes what either
   * sends to the other. `onData` comes no more but for the end of a side, and for bytes that had been read before or that the other
   * side can take no more; all other hooks come as without. Undefined: bytes go on coming, since another filter of the chain has
   * `onData` or `onWrite`, or one of the two is encrypted or no socket. Absent in a sandbox.
   */
  relay?(upstream: Pick<Connection, "relayWith">): Relay | undefined;
}

/** A connection before its chain is chosen. */
export interface AcceptedSocket {
  remoteAddress: Address;
  localAddress: Address;
  transportProtocol: string;
  serverName: string;
  applicationProtocols: readonly string[];
  /** Fingerprints of the client's TLS (`%TLS_JA3_FINGERPRINT%`, `%TLS_JA4_FINGERPRINT%`). */
  ja3Fingerprint?: string;
  ja4Fingerprint?: string;
  /** `%DOWNSTREAM_TRANSPORT_FAILURE_REASON%` of the connection, unless its transport fails. */
  transportFailure?: string;
  /** Dynamic metadata for the connection: a namespace, and what to put into it. */
  setMetadata?(namespace: string, values: Readonly<Record<string, unknown>>): void;
  /** An object for the filter state of the connection. Absent: the filter is sandboxed. */
  setFilterState?(key: string, value: unknown): void;
}

/** Bytes that the filter takes from the connection, or that it waits for more, or ends it. */
export type ListenerAnswer = number | "more" | "close";
/** The object that a package makes for each accepted connection. */
export interface ListenerFilter {
  /**
   * Called at accept with no bytes, and again whenever more have come. `bytes` is everything received so far. Answers how many
   * bytes it consumes (0: it only looked), or "more" to wait, or "close", or a promise of one of these. All waiting is bounded by
   * `listener_filters_timeout`.
   */
  onBytes(bytes: Chunk): ListenerAnswer | Promise<ListenerAnswer>;
  /** The client has closed, or the time is over, while the filter waited. */
  onAbandoned?(): void;
}
/** What a listener package's setup returns. */
export type ListenerFilterFactory = (socket: AcceptedSocket) => ListenerFilter;
