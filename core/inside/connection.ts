// Hot path: all bytes of all connections.
import type {
  Address,
  Chunk,
  CloseEvent,
  CloseType,
  Connection,
  ConnectionHandler,
  DownstreamConnection,
  Gauge,
  NetworkFilter,
  Output,
  TlsInfo,
} from "@tsproxy/sdk";
import type { Handshake } from "./handshake.ts";
import type { Io } from "./io.ts";
import type { Relay, RelayTable } from "./relay.ts";
import { COMMAND, HOW } from "./ring.ts";
import type { TimerWheel, WheelTimer } from "./timers.ts";
import { WriteChain, type WriteOwner } from "./write-chain.ts";

const NO_ADDRESS: Address = { ip: "", port: 0 };
const NO_LISTENER = { name: "", statPrefix: "", direction: "UNSPECIFIED" as const };
/** A connection is closed when a filter's promise has been pending for this long. */
const LONGEST_PAUSE_MS = 300_000;
const FLUSH_MS = 60_000; // a closed connection is aborted if its peer takes none of its bytes for this long
const LINGER_READ_LIMIT = 1 << 20; // what is still read of a closed connection that lingers; its peer may wait for room before it reads

/** What a connection writes to: the ring, or (internal.ts) another connection of this isolate. */
export type Wire = Pick<
  Io,
  | "hasRoom"
  | "canCopy"
  | "canForward"
  | "copyOut"
  | "forward"
  | "reserve"
  | "isOutput"
  | "commit"
  | "command"
  | "place"
  | "placeText"
>;

/** What a connection asks of its table: the ring, the clock, and work that has to wait for a later turn. */
export interface ConnectionOwner {
  readonly io: Io;
  readonly wheel: TimerWheel;
  readonly relays: RelayTable;
  onFault(error: unknown): void;
  /** Runs a task that writes into the output segment (connection-table.ts has its limit), in a later turn if there is no room now. */
  soon(task: () => void): void;
  /** Asks for a turn in which the connection writes its kept bytes. */
  pull(connection: SocketConnection): void;
  /** Asks for a turn in which `onAgain` is called. */
  again(connection: SocketConnection): void;
  /** This side has closed the connection. */
  closed(connection: SocketConnection): void;
  /** A connection is closed before it got an id. */
  forgetWithoutId(connection: SocketConnection): void;
}

/**
 * A socket as packages see it, accepted or connecting. A write never fails: bytes that find no room in the output segment are
 * kept here, and the connection is blocked meanwhile, so that its writer pauses its own source.
 */
export class SocketConnection implements DownstreamConnection, WriteOwner {
  id: number;
  handler: ConnectionHandler;
  remoteAddress: Address = NO_ADDRESS;
  localAddress: Address = NO_ADDRESS;
  localAddressRestored = false;
  listener: DownstreamConnection["listener"] = NO_LISTENER;
  startTime = 0;
  transportProtocol = "raw_buffer";
  serverName = "";
  ja3Fingerprint: string | undefined = undefined;
  ja4Fingerprint: string | undefined = undefined;
  applicationProtocols: readonly string[] = [];
  directAddress: Address = NO_ADDRESS;
  directLocalAddress: Address | undefined = undefined;
  metadata: Map<string, Record<string, unknown>> | undefined = undefined;
  filterState: Map<string, unknown> | undefined = undefined;
  terminationDetails: string | undefined = undefined;
  responseFlag: string | undefined = undefined;
  filterChainName = "";
  filterChainMetadata: unknown = undefined;
  describedBy: DownstreamConnection["describedBy"] = undefined;
  secure = false;
  tls: TlsInfo | undefined = undefined;
  tlsVersion: string | undefined = undefined;
  /** Set until the transport's handshake has ended. */
  handshake: Handshake | undefined = undefined;
  transportFailure = "";
  /** For the listener's access log. */
  closeType: CloseType = "Normal";
  /** Metadata for the connection that an internal listener accepts from this one. */
  passedMetadata: Map<string, Record<string, unknown>> | undefined = undefined;
  /** Called once when the socket has closed, to end the connection's counts. */
  onGone: (() => void) | undefined = undefined;
  draining = false;
  /** `ConnectOptions.awaitsClose` */
  awaitsClose = false;
  bytesReceived = 0;
  bytesSent = 0;
  connecting = false;
  connectBegin = -1;
  connectEnd = -1;
  handshakeEnd = -1;
  open = true;
  /** Core passes on its bytes. */
  relay: Relay | undefined = undefined;
  /** The socket has closed, or was never created, and `onClosed` has run. */
  gone = false;
  readonly #table: ConnectionOwner;
  #io: Wire;
  #pending: Uint8Array[] | undefined = undefined;
  #pendingAt = 0;
  #pendingSize = 0;
  /** Bytes in core that the kernel has not taken. */
  #socketUnsent = 0;
  /** Counts both. */
  #unsentGauge: Gauge | undefined = undefined;
  /** The socket's own write queue is over its high watermark. */
  #socketBlocked = false;
  /** The handler has been told `onBlocked`, and not yet `onDrained`. */
  #toldBlocked = false;
  #pauses = 0;
  #ending = false;
  #closing: "no" | "flush" | "abort" | "delayed" = "no";
  /** The peer has ended a connection whose close was delayed for it: then it is the peer's close. */
  #peerLeft = false;
  #timedOut = false;
  #lingerMs = 0;
  #lingerRead = 0;
  #timer: WheelTimer | undefined = undefined;
  #flushTimer: WheelTimer | undefined = undefined;
  #againAsked = false;
  /** Writes are kept until the transport is ready. */
  #held = false;
  #hasTls = false;
  /** The filters with `onWrite`, if there are any. */
  #writes: WriteChain | undefined = undefined;

  constructor(table: ConnectionOwner, id: number, handler: ConnectionHandler) {
    this.#table = table;
    this.#io = table.io;
    this.id = id;
    this.handler = handler;
  }

  get blocked(): boolean {
    return this.#socketBlocked || this.#pending !== undefined || this.#writes?.waits === true;
  }

  get ended(): boolean {
    return this.#ending;
  }

  get #writable(): boolean {
    return this.open && !this.#ending;
  }

  reserve(size: number): Output {
    const io = this.#io;
    if (
      this.#pending === undefined &&
      this.#writes === undefined &&
      io.canCopy(size) &&
      this.#writable
    )
      return io.reserve(size);
    return { memory: new Uint8Array(size), at: 0 };
  }

  commit(output: Output): void {
    if (this.#io.isOutput(output)) {
      this.bytesSent += this.#io.commit(this.id);
    } else if (this.#writes !== undefined) {
      this.write(output.memory, 0, output.at);
    } else if (this.#writable && output.at > 0) {
      this.bytesSent += output.at;
      this.#keep(output.memory.subarray(0, output.at));
    }
  }

  write(memory: Uint8Array, at: number, end: number): void {
    if (this.#writes === undefined) this.#put(memory, at, end);
    else if (end > at && this.#writable) this.#writes.write(memory, at, end, false);
  }

  #put(memory: Uint8Array, at: number, end: number): void {
    const size = end - at;
    if (size <= 0 || !this.#writable) return;
    this.bytesSent += size;
    const io = this.#io;
    if (this.#pending !== undefined || this.id < 0) this.#keep(memory.slice(at, end));
    else if (io.canForward(this.id, memory, at, size)) io.forward(this.id, at, size);
    else if (io.canCopy(size)) io.copyOut(this.id, memory, at, end);
    else this.#keep(memory.slice(at, end));
  }

  #keep(bytes: Uint8Array): void {
    if (this.#pending === undefined) {
      this.#pending = [];
      this.#pendingAt = 0;
      if (!this.#socketBlocked) this.#table.pull(this);
      this.relay?.update();
      this.#tellBlocked();
    }
    this.#pending.push(bytes);
    this.#countPending(bytes.length);
  }

  #countPending(change: number): void {
    this.#pendingSize += change;
    if (change !== 0) this.#unsentGauge?.add(change);
  }

  #dropPending(): void {
    this.#pending = undefined;
    this.#countPending(-this.#pendingSize);
  }

  countUnsent(gauge: Gauge): void {
    const unsent = this.#pendingSize + this.#socketUnsent;
    if (unsent > 0) {
      this.#unsentGauge?.add(-unsent);
      gauge.add(unsent);
    }
    this.#unsentGauge = gauge;
  }

  /** Writes kept bytes as far as there is room. False: the output segment is full; the connection must be pulled again. */
  flushPending(): boolean {
    const io = this.#io;
    const pending = this.#pending;
    if (pending === undefined || !this.open) return true;
    if (this.id < 0 || this.#held) return true;
    while (pending.length > 0) {
      if (this.#socketBlocked) return true;
      const bytes = pending[0]!;
      const size = Math.min(bytes.length - this.#pendingAt, 32 * 1024);
      if (!io.hasRoom || !io.canCopy(size)) return false;
      io.copyOut(this.id, bytes, this.#pendingAt, this.#pendingAt + size);
      this.#pendingAt += size;
      this.#countPending(-size);
      if (this.#pendingAt === bytes.length) {
        pending.shift();
        this.#pendingAt = 0;
      }
    }
    this.#pending = undefined;
    this.relay?.update();
    if (this.#ending) io.command(COMMAND.END, this.id, 0, 0);
    this.#onFlushed();
    return true;
  }

  #onFlushed(): void {
    if (this.#unsent) return;
    this.#flushTimer?.cancel();
    if (this.#closing === "flush") this.#closeNow();
    else if (this.#closing === "delayed") this.#linger();
    else this.#tellDrained();
  }

  /** Written bytes wait, here or at a filter. */
  get #unsent(): boolean {
    return this.#pending !== undefined || this.#writes?.waits === true;
  }

  setMetadata(namespace: string, values: Record<string, unknown>): void {
    this.metadata ??= new Map();
    this.metadata.set(namespace, values);
  }

  setFilterState(key: string, value: unknown): void {
    this.filterState ??= new Map();
    this.filterState.set(key, value);
  }

  end(): void {
    if (!this.#writable) return;
    if (this.#writes !== undefined) this.#writes.write(NOTHING, 0, 0, true);
    else this.#end();
  }

  #end(): void {
    if (!this.#writable) return;
    this.#ending = true;
    if (this.#pending === undefined && this.id >= 0) this.#io.command(COMMAND.END, this.id, 0, 0);
  }

  close(how: "flush" | "abort" | "reset"): void {
    if (!this.open || (this.#closing === "abort" && how !== "reset")) return;
    this.relay?.end();
    if (how === "flush" && this.id >= 0) {
      if (this.#closing === "flush") return;
      this.#closing = "flush";
      if (this.#unsent) this.#limitFlush();
      else this.#closeNow();
      return;
    }
    this.#closing = "abort";
    if (how === "reset") this.closeType = "LocalReset";
    this.#dropPending();
    if (this.id < 0) this.#table.forgetWithoutId(this);
    else this.#io.command(COMMAND.CLOSE, this.id, how === "reset" ? HOW.RESET : HOW.ABORT, 0);
    this.#shut();
  }

  /** Lets core finish a TLS handshake (1.2 and below) that was held back until the client's certificate had been judged. */
  acceptPeer(): void {
    if (this.open) this.#io.command(COMMAND.ACCEPT_PEER, this.id, 0, 0);
  }

  /** Closes the connection with a TLS alert instead of a handshake. */
  refuse(alert: number): void {
    if (!this.open || this.#closing !== "no") return;
    this.#closing = "abort";
    this.#dropPending();
    this.#io.command(COMMAND.CLOSE, this.id, HOW.REFUSE, alert);
    this.#shut();
  }

  #closeNow(): void {
    this.#io.command(COMMAND.CLOSE, this.id, HOW.FLUSH, 0);
    this.#shut();
  }

  closeDelayed(ms: number): void {
    if (!this.open || this.#closing !== "no") return;
    this.relay?.end();
    this.#closing = "delayed";
    this.#lingerMs = ms;
    if (this.#unsent) this.#limitFlush();
    else this.#linger();
  }

  /** Aborts the connection if the peer takes nothing of what is kept here. Core does so for what it has itself. */
  #limitFlush(): void {
    const { length } = this.#pending ?? [];
    const at = this.#pendingAt;
    this.#flushTimer?.cancel();
    this.#flushTimer = this.#table.wheel.timer(() => {
      if (this.#pending?.length === length && this.#pendingAt === at) this.close("abort");
      else this.#limitFlush();
    });
    this.#flushTimer.arm(FLUSH_MS);
  }

  #linger(): void {
    if (this.#lingerMs === 0) {
      this.#closing = "no";
      this.close("flush");
      return;
    }
    this.#timer ??= this.#table.wheel.timer(() => this.#onTimer());
    this.#timer.arm(this.#lingerMs);
  }

  /** From now on the handler is called with `onClosed` only. */
  #shut(): void {
    this.open = false;
    this.#timer?.cancel();
    this.#flushTimer?.cancel();
    this.#table.closed(this);
  }

  #onTimer(): void {
    if (this.connecting) {
      this.#timedOut = true;
      this.close("abort");
    } else {
      this.#timedOut = true;
      this.#closing = "no";
      this.close("flush");
    }
  }

  /** Closes the connection if it is not established within `ms`. */
  connectTimeout(ms: number): void {
    let expired = false;
    this.#timer = this.#table.wheel.timer(() => {
      // After a pause of the thread its timers run before the socket events that came meanwhile. The extra millisecond lets a
      // connection that was established in time be seen first.
      if (expired || !this.connecting) return this.#onTimer();
      expired = true;
      this.#timer?.arm(1);
    });
    this.#timer.arm(ms);
  }

  pause(): void {
    if (this.#pauses++ === 0 && this.open && this.id >= 0)
      this.#io.command(COMMAND.PAUSE, this.id, 0, 0);
  }

  resume(): void {
    if (--this.#pauses === 0 && this.open && this.id >= 0)
      this.#io.command(COMMAND.RESUME, this.id, 0, 0);
  }

  again(): void {
    if (this.#againAsked) return;
    this.#againAsked = true;
    this.#table.again(this);
  }

  // ---- a relay

  relayWith(other: Connection): Relay | undefined {
    if (!(other instanceof SocketConnection) || !this.#mayRelay || !other.#mayRelay)
      return undefined;
    const relay = this.#table.relays.begin(this, other);
    this.relay = other.relay = relay;
    relay.update();
    return relay;
  }

  /** Its bytes are those of a socket, and nobody here wants to see what is written to it. */
  get #mayRelay(): boolean {
    const isOpen = this.open && this.#closing === "no" && !this.connecting && this.id >= 0;
    const isPlain = this.#io === this.#table.io && !this.#hasTls && !this.#held;
    return isOpen && isPlain && this.#writes === undefined && this.relay === undefined;
  }

  /** Written bytes wait here for room. */
  get keeps(): boolean {
    return this.#pending !== undefined;
  }

  countRelayed(received: number, sent: number): void {
    this.bytesReceived += received;
    this.bytesSent += sent;
  }

  // ---- filters with `onWrite`

  /** The filters of its chain, in the order of the config. */
  filterWrites(filters: readonly NetworkFilter[]): void {
    if (filters.some((filter) => filter.onWrite !== undefined))
      this.#writes = new WriteChain(this, filters);
  }

  /** Writes bytes of the filter at `place`, through the filters before it only. */
  injectWrite(place: number, bytes: Uint8Array, endStream: boolean): void {
    if (this.#writes !== undefined) this.#writes.inject(place, bytes, endStream);
    else this.pass(bytes, 0, bytes.length, endStream);
  }

  /** Writes bytes that have passed all filters. */
  pass(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#put(memory, at, end);
    if (endStream) this.#end();
  }

  onWritesPaused(): void {
    this.#tellBlocked();
  }

  onWritesPassed(): void {
    if (this.open) this.#onFlushed();
  }

  /** A timer that closes the connection, for a filter's promise that does not settle. */
  pauseTimer(): WheelTimer {
    return this.#table.wheel.timer(() =>
      this.fail(new Error(`a filter's promise was pending for ${LONGEST_PAUSE_MS / 1000} s`)),
    );
  }
  readonly longestPauseMs = LONGEST_PAUSE_MS;

  /** Reports what a filter has thrown outside an event of this connection, and closes it. */
  fail(error: unknown): void {
    this.#table.onFault(error);
    this.close("abort");
  }

  /** Makes this connection one end of an internal connection. */
  wireTo(wire: Wire, id: number): void {
    this.#io = wire;
    this.id = id;
    // It has no socket whose end core would tell.
    this.awaitsClose = false;
  }

  // ---- the transport

  adopt(handler: ConnectionHandler): void {
    if (this.handshake !== undefined) this.handshake.inner = handler;
    else this.handler = handler;
  }

  /** Gives the connection to its transport; writes of the chain are kept meanwhile. */
  hold(handshake: Handshake): void {
    this.handshake = handshake;
    this.handler = handshake;
    this.#held = true;
    this.#pending ??= [];
    this.#toldBlocked = true;
  }

  /** Writes bytes of the transport, ahead of the kept ones. */
  writeFirst(bytes: Uint8Array): void {
    if (!this.open) return;
    this.bytesSent += bytes.length;
    this.#table.soon(() => {
      if (this.open) this.#io.copyOut(this.id, bytes, 0, bytes.length);
    });
  }

  /** Starts TLS. `text`: its options as JSON in ASCII; `shown`: bytes already read that belong to the TLS handshake. */
  startTls(text: string, shown: Uint8Array): void {
    this.#hasTls = true;
    this.#table.soon(() => {
      if (!this.open) return;
      const io = this.#io;
      const at = io.placeText(text);
      io.command(COMMAND.TLS, this.id, at, text.length);
      if (shown.length > 0) this.#giveBack(shown);
    });
  }

  /** Gives bytes back to core that belong to the TLS handshake. */
  unread(bytes: Uint8Array): void {
    this.#table.soon(() => {
      if (this.open) this.#giveBack(bytes);
    });
  }

  #giveBack(bytes: Uint8Array): void {
    const at = this.#io.place(bytes, 0, bytes.length);
    this.#io.command(COMMAND.UNREAD, this.id, at, bytes.length);
  }

  onTransportReady(inner: ConnectionHandler): void {
    this.handshake = undefined;
    this.handler = inner;
    this.connecting = false;
    if (this.#closing === "no") this.#timer?.cancel();
    this.#held = false;
    this.handshakeEnd = this.#table.wheel.now;
    this.#table.pull(this);
    if (this.open) inner.onConnected?.();
  }

  // ---- events

  onAgain(): void {
    this.#againAsked = false;
    if (this.open) this.handler.onAgain?.();
  }

  onData(chunk: Chunk): void {
    if (!this.open) return;
    const size = chunk.end - chunk.at;
    this.bytesReceived += size;
    if (this.#closing !== "no") {
      const before = this.#lingerRead;
      this.#lingerRead += size;
      // Not aborted: the reset would take from the peer what it has not read yet.
      if (before <= LINGER_READ_LIMIT && this.#lingerRead > LINGER_READ_LIMIT) this.pause();
      return;
    }
    this.handler.onData(chunk);
  }

  onEof(): void {
    if (!this.open) return;
    if (this.#closing !== "no") {
      this.#peerLeft = this.#closing === "delayed";
      this.#closing = "no";
      this.close("flush");
    } else this.handler.onEof();
  }

  /** An outgoing connection has got its id from core. */
  onId(id: number): void {
    this.id = id;
    if (this.#pauses > 0) this.#io.command(COMMAND.PAUSE, id, 0, 0);
    if (this.#pending !== undefined) this.#table.pull(this);
    else if (this.#ending) this.#io.command(COMMAND.END, id, 0, 0);
  }

  onConnected(local: Address): void {
    this.localAddress = local;
    this.connectEnd = this.#table.wheel.now;
    if (this.handshake !== undefined) {
      if (this.open) this.handshake.onConnected();
      return;
    }
    this.connecting = false;
    this.#timer?.cancel();
    if (this.open) this.handler.onConnected?.();
  }

  /** Also of a connection that this side has closed, until core has sent the rest. */
  onUnsent(bytes: number): void {
    this.#unsentGauge?.add(bytes - this.#socketUnsent);
    this.#socketUnsent = bytes;
  }

  onSocketBlocked(): void {
    this.#socketBlocked = true;
    this.#tellBlocked();
  }

  onSocketDrained(): void {
    this.#socketBlocked = false;
    if (this.#pending !== undefined) this.#table.pull(this);
    else this.#tellDrained();
  }

  onClosed(local: boolean, error: string, connecting: boolean): void {
    if (this.gone) return;
    this.gone = true;
    this.relay?.end();
    if (!local && error === "ECONNRESET") this.closeType = "RemoteReset";
    this.onGone?.();
    this.open = false;
    this.#timer?.cancel();
    this.#flushTimer?.cancel();
    this.#dropPending();
    const isPeers = this.#closing === "delayed" || this.#peerLeft;
    const isOurs = local || this.#closing !== "no";
    const event: CloseEvent = {
      by: this.#timedOut || (isOurs && !isPeers) ? "local" : "remote",
      phase: connecting || this.connecting ? "connecting" : "connected",
      timeout: this.#timedOut,
      error: error === "" ? undefined : error,
      ...(this.transportFailure !== "" && { transportFailure: this.transportFailure }),
    };
    this.connecting = false;
    this.handler.onClosed(event);
  }

  #tellBlocked(): void {
    if (this.#toldBlocked || !this.open) return;
    this.#toldBlocked = true;
    this.handler.onBlocked?.();
  }

  #tellDrained(): void {
    if (!this.#toldBlocked || this.blocked || !this.open) return;
    this.#toldBlocked = false;
    this.handler.onDrained?.();
  }
}

const NOTHING = new Uint8Array(0);
