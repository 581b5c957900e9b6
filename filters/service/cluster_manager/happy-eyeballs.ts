import type {
  Address,
  Chunk,
  CloseEvent,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  Gauge,
  Output,
  Relay,
  SetupContext,
  Timer,
  TlsInfo,
} from "@tsproxy/sdk";

/** Delay before the next address is tried in parallel, as in Envoy; RFC 8305 §5 recommends 250 ms. */
const ATTEMPT_DELAY_MS = 300;
/** Limit for addresses tried per connection, as a name may resolve to any number. */
const MAX_ADDRESSES = 64;

export type Family = "V4" | "V6" | "PIPE";

/** Envoy's `happy_eyeballs_config`. */
export interface HappyEyeballs {
  /** Undefined: the family of the first address. */
  readonly firstFamily: Family | undefined;
  /** Number of addresses of that family before one of each other family. */
  readonly firstCount: number;
}

export function familyOf(address: Address): Family {
  if (address.path !== undefined) return "PIPE";
  return address.ip.includes(":") ? "V6" : "V4";
}

/** Sorts addresses as Envoy does (RFC 8305 §4): families alternate, and each keeps its order. */
export function interleave(addresses: readonly Address[], config: HappyEyeballs): Address[] {
  const families = new Map<Family, Address[]>();
  const preferred = config.firstFamily ?? familyOf(addresses[0]!);
  for (const address of addresses) {
    const family = familyOf(address);
    const list = families.get(family);
    if (list === undefined) families.set(family, [address]);
    else list.push(address);
  }
  const first = families.get(preferred) ?? [];
  families.delete(preferred);
  const sorted: Address[] = [];
  while (sorted.length < addresses.length) {
    sorted.push(...first.splice(0, config.firstCount));
    for (const list of families.values()) sorted.push(...list.splice(0, 1));
  }
  return sorted.slice(0, MAX_ADDRESSES);
}

/** The connection to one address of a race; once it has won, its events go to the race's handler. */
class Attempt implements ConnectionHandler {
  readonly #race: Race;
  readonly connection: Connection;

  constructor(race: Race, cx: SetupContext, address: Address, options: ConnectOptions) {
    this.#race = race;
    this.connection = cx.connect(address, this, options);
  }
  onConnected(): void {
    this.#race.onConnected(this);
  }
  onData(chunk: Chunk): void {
    this.#race.handler.onData(chunk);
  }
  onRelayed(bytes: number, size: number, at: number): void {
    this.#race.handler.onRelayed?.(bytes, size, at);
  }
  onEof(): void {
    this.#race.handler.onEof();
  }
  onBlocked(): void {
    this.#race.onBlocked();
  }
  onDrained(): void {
    this.#race.onDrained();
  }
  onAgain(): void {
    this.#race.handler.onAgain?.();
  }
  onClosed(event: CloseEvent): void {
    this.#race.onAttemptClosed(this, event);
  }
}

/**
 * A connection to the first of several addresses that connects (RFC 8305; Envoy's HappyEyeballsConnectionImpl), with TLS
 * after the handshake. Bytes written before that are kept here.
 *
 *   first address ──300 ms, or it failed──> the next in parallel ──> …      connect_timeout applies to all together
 *        └── the first to connect wins, the others close; if all fail, the last failure is reported
 */
export class Race implements Connection {
  readonly handler: ConnectionHandler;
  readonly #cx: SetupContext;
  readonly #addresses: readonly Address[];
  readonly #optionsFor: (address: Address) => ConnectOptions;
  readonly #onFurtherAttempt: () => void;
  #next = 0;
  /** Attempts that have not failed; after the race only the winner. */
  readonly #attempts = new Set<Attempt>();
  #latest!: Connection;
  #winner: Connection | undefined = undefined;
  readonly #delay: Timer;
  readonly #deadline: Timer | undefined;
  #closing = false;
  #timedOut = false;
  readonly #kept: Uint8Array[] = [];
  #keptBytes = 0;
  ended = false;
  #pauses = 0;
  #unsentGauge: Gauge | undefined = undefined;
  /** The handler was told `onBlocked` and not yet `onDrained`. */
  #told = false;

  constructor(
    cx: SetupContext,
    addresses: readonly Address[],
    handler: ConnectionHandler,
    options: {
      readonly timeoutMs: number;
      optionsFor(address: Address): ConnectOptions;
      /** Called for each attempt after the first, as each counts in `upstream_cx_total`. */
      onFurtherAttempt(): void;
    },
  ) {
    this.#onFurtherAttempt = options.onFurtherAttempt;
    this.#cx = cx;
    this.handler = handler;
    this.#addresses = addresses;
    this.#optionsFor = (address) => ({ ...options.optionsFor(address), timeoutMs: 0 });
    this.#delay = cx.timer(() => this.#try());
    if (options.timeoutMs > 0) {
      this.#deadline = cx.timer(() => this.#onTimeout());
      this.#deadline.arm(options.timeoutMs);
    }
    this.#try();
  }

  #try(): void {
    if (this.#next > 0) this.#onFurtherAttempt();
    const address = this.#addresses[this.#next++]!;
    const attempt = new Attempt(this, this.#cx, address, this.#optionsFor(address));
    this.#attempts.add(attempt);
    this.#latest = attempt.connection;
    if (this.#next < this.#addresses.length) this.#delay.arm(ATTEMPT_DELAY_MS);
  }

  #onTimeout(): void {
    this.#timedOut = true;
    this.#abort();
  }

  /** Aborts all attempts; the handler is told when the last one has closed. */
  #abort(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#stopTimers();
    for (const attempt of this.#attempts) attempt.connection.close("abort");
  }

  #stopTimers(): void {
    this.#delay.cancel();
    this.#deadline?.cancel();
  }

  onConnected(attempt: Attempt): void {
    if (this.#winner !== undefined || this.#closing) return;
    const winner = attempt.connection;
    this.#winner = winner;
    this.#stopTimers();
    this.#attempts.delete(attempt);
    for (const loser of this.#attempts) loser.connection.close("abort");
    this.#attempts.clear();
    this.#attempts.add(attempt);
    if (this.#unsentGauge !== undefined) winner.countUnsent?.(this.#unsentGauge);
    for (let k = 0; k < this.#pauses; k++) winner.pause();
    for (const bytes of this.#kept) winner.write(bytes, 0, bytes.length);
    this.#kept.length = 0;
    if (this.ended) winner.end();
    this.handler.onConnected?.();
    if (!winner.blocked) this.onDrained();
  }

  onAttemptClosed(attempt: Attempt, event: CloseEvent): void {
    // An attempt that has lost is not in the set any more.
    if (!this.#attempts.delete(attempt)) return;
    if (this.#winner !== undefined) {
      this.handler.onClosed(event);
      return;
    }
    if (!this.#closing && this.#next < this.#addresses.length) {
      this.#delay.cancel();
      this.#try();
      return;
    }
    if (this.#attempts.size > 0) return;
    this.#stopTimers();
    const closing = this.#closing;
    this.#closing = true;
    this.handler.onClosed(closing ? { ...event, by: "local", timeout: this.#timedOut } : event);
  }

  onBlocked(): void {
    if (this.#told || this.#winner === undefined) return;
    this.#told = true;
    this.handler.onBlocked?.();
  }
  onDrained(): void {
    if (!this.#told || this.#winner === undefined) return;
    this.#told = false;
    this.handler.onDrained?.();
  }

  /** The connection that has won; undefined while the race runs. */
  get winner(): Connection | undefined {
    return this.#winner;
  }
  /** For a handover to another generation: each connection with the handler that core must call. */
  *sockets(): IterableIterator<readonly [Connection, ConnectionHandler]> {
    for (const attempt of this.#attempts) yield [attempt.connection, attempt];
  }

  // ---- methods of Connection

  get id(): number {
    return (this.#winner ?? this.#latest).id;
  }
  get remoteAddress(): Address {
    return (this.#winner ?? this.#latest).remoteAddress;
  }
  get localAddress(): Address {
    return (this.#winner ?? this.#latest).localAddress;
  }
  get open(): boolean {
    return this.#winner?.open ?? !this.#closing;
  }
  get tls(): TlsInfo | undefined {
    return this.#winner?.tls;
  }
  get blocked(): boolean {
    return this.#winner?.blocked ?? this.#kept.length > 0;
  }
  get bytesReceived(): number {
    return this.#winner?.bytesReceived ?? 0;
  }
  get bytesSent(): number {
    return this.#winner?.bytesSent ?? this.#keptBytes;
  }

  countUnsent(gauge: Gauge): void {
    if (this.#winner !== undefined) this.#winner.countUnsent?.(gauge);
    else this.#unsentGauge = gauge;
  }
  reserve(size: number): Output {
    return this.#winner?.reserve(size) ?? { memory: new Uint8Array(size), at: 0 };
  }
  /** Room reserved before there was a winner is memory of this object, not of the winner's. */
  commit(output: Output): void {
    if (this.#winner !== undefined) this.#winner.commit(output);
    else this.#keep(output.memory.subarray(0, output.at));
  }
  write(memory: Uint8Array, at: number, end: number): void {
    if (this.#winner !== undefined) this.#winner.write(memory, at, end);
    else this.#keep(memory.slice(at, end));
  }

  /** Keeps bytes for the winner, without a limit; the writer is told by `onBlocked`, as by a connecting socket. */
  #keep(bytes: Uint8Array): void {
    if (bytes.length === 0 || this.ended || this.#closing) return;
    this.#kept.push(bytes);
    this.#keptBytes += bytes.length;
    if (this.#told) return;
    this.#told = true;
    this.handler.onBlocked?.();
  }

  end(): void {
    this.ended = true;
    this.#winner?.end();
  }
  close(how: "flush" | "abort" | "reset"): void {
    if (this.#winner !== undefined) this.#winner.close(how);
    else this.#abort();
  }
  closeDelayed(ms: number): void {
    if (this.#winner !== undefined) this.#winner.closeDelayed(ms);
    else this.#abort();
  }
  pause(): void {
    if (this.#winner !== undefined) this.#winner.pause();
    else this.#pauses++;
  }
  resume(): void {
    if (this.#winner !== undefined) this.#winner.resume();
    else this.#pauses--;
  }
  relayWith(other: Connection): Relay | undefined {
    return this.#winner?.relayWith?.(other);
  }
  again(): void {
    (this.#winner ?? this.#latest).again();
  }
}
