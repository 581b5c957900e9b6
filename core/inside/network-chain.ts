// Hot path: every downstream read.
import {
  assertNetworkVerdict,
  Chunk,
  type CloseEvent,
  type Connection,
  type ConnectionHandler,
  type Drain,
  type Generation,
  type Listed,
  type NetworkChain,
  type NetworkFilter,
  type NetworkFilterFactory,
  type Relay,
  type Slot,
  stop,
  type TransportFactory,
} from "@tsproxy/sdk";
import type { SocketConnection } from "./connection.ts";
import type { WheelTimer } from "./timers.ts";

const MOST_KEPT = 8 << 20; // where the listener's own limit is higher, or none
const OVERRUN = 1 << 20; // bytes that arrive after the pause, more than core ever has under way; more close the connection

/**
 * The network filters of one connection, called in order. A filter that returns `stop` or a promise keeps later ones from running;
 * bytes that arrive meanwhile are kept. Reading goes on until they are as many as the listener may buffer: a close of a connection
 * whose bytes nobody has read is a reset, which takes from the peer what was written to it.
 */
export class NetworkChainRun implements ConnectionHandler, Listed {
  place = -1;
  readonly connection: SocketConnection;
  /** The transport that the connection's bytes pass. */
  transport: Generation<TransportFactory> | undefined = undefined;
  readonly #filters: NetworkFilter[] = [];
  readonly #generations: Generation<NetworkFilterFactory>[] = [];
  readonly #onEnd: (event: CloseEvent) => void;
  /** The only filter, as long as it has not stopped the chain: the common case. */
  #single: NetworkFilter | undefined = undefined;
  #connected = 0;
  /** Kept bytes, and the index of the first filter that has not seen them. */
  readonly #kept: { readonly bytes: Uint8Array; readonly from: number }[] = [];
  #keptSize = 0;
  readonly #keptLimit: number;
  /** The filter that has stopped the chain, or -1. */
  #stoppedAt = -1;
  #resumeAsked = false;
  #walking = false;
  #paused = false;
  #ended = false;
  #endDelivered = false;
  /** Index of the first filter that has not seen the end. */
  #endFrom = 0;
  #over = false;
  /** Limits how long a filter's promise may be pending. */
  #timer: WheelTimer | undefined = undefined;
  readonly #chunk = new Chunk(new Uint8Array(0), 0, 0);

  /** `keptLimit`: bytes; 0: the listener has no limit. */
  constructor(connection: SocketConnection, keptLimit: number, onEnd: (event: CloseEvent) => void) {
    this.connection = connection;
    this.#keptLimit = Math.min(keptLimit || MOST_KEPT, MOST_KEPT);
    this.#onEnd = onEnd;
  }

  /** Creates the filters and runs their `onConnect`. A filter that throws closes the connection. */
  start(slots: readonly Slot<NetworkFilterFactory>[]): void {
    for (const [at, slot] of slots.entries()) {
      const generation = slot.current;
      generation.acquire();
      this.#generations.push(generation);
      this.#filters.push(generation.value.create(this.connection, new ChainHold(this, at)));
    }
    if (this.#filters.length === 0) {
      this.connection.close("abort");
      return;
    }
    this.connection.filterWrites(this.#filters);
    this.#go(0);
    if (this.#filters.length === 1 && this.#stoppedAt < 0) this.#single = this.#filters[0];
  }

  /** Calls `onConnect` of the filters from `at` on that have not had it, until one stops the chain. */
  #go(at: number): void {
    for (let k = at; k < this.#filters.length; k++) {
      if (k >= this.#connected) {
        this.#connected = k + 1;
        const result = this.#filters[k]!.onConnect?.();
        if (result !== undefined) {
          this.#stopAt(k, result);
          return;
        }
      }
    }
  }

  onData(chunk: Chunk): void {
    if (this.#single !== undefined) {
      const result = this.#single.onData?.(chunk, false);
      if (result !== undefined) this.#stopAt(0, result);
      return;
    }
    if (this.#stoppedAt >= 0) this.#keep(chunk, 0, false);
    else this.#walk(0, chunk, false);
  }

  onEof(): void {
    this.#ended = true;
    if (this.#stoppedAt >= 0) return;
    this.#endDelivered = true;
    this.#chunk.replace(EMPTY);
    this.#walk(0, this.#chunk, true);
  }

  #walk(from: number, chunk: Chunk, endStream: boolean): void {
    for (let k = from; k < this.#filters.length && !this.#over; k++) {
      const filter = this.#filters[k]!;
      this.#walking = true;
      const result = filter.onData?.(chunk, endStream);
      this.#walking = false;
      if (result === undefined) continue;
      if (this.#resumeAsked) {
        this.#resumeAsked = false;
        continue;
      }
      const last = k + 1 === this.#filters.length;
      if (!last && chunk.end > chunk.at) this.#keep(chunk, k + 1, true);
      if (endStream) {
        this.#endDelivered = false;
        this.#endFrom = k + 1;
      }
      this.#stopAt(k, result);
      return;
    }
  }

  /** The chain stops at filter `at`, until it or its promise resumes it. */
  #stopAt(at: number, result: typeof stop | PromiseLike<Uint8Array | typeof stop | void>): void {
    assertNetworkVerdict(result, false);
    this.#stoppedAt = at;
    this.#single = undefined;
    if (typeof result === "symbol") return;
    this.#timer ??= this.connection.pauseTimer();
    this.#timer.arm(this.connection.longestPauseMs);
    result.then(
      (bytes) => {
        if (this.#over || this.#stoppedAt !== at) return;
        try {
          assertNetworkVerdict(bytes, true);
        } catch (error) {
          this.connection.fail(error);
          return;
        }
        if (bytes === stop) {
          this.#timer?.cancel();
          return;
        }
        if (bytes !== undefined) this.#replaceKept(at + 1, bytes);
        this.resumeReading(at);
      },
      (error) => {
        if (!this.#over) this.connection.fail(error);
      },
    );
  }

  /** The promise of the filter before `from` settled with other bytes in the place of its chunk. */
  #replaceKept(from: number, bytes: Uint8Array): void {
    const first = this.#kept[0];
    if (first?.from !== from) return;
    this.#keptSize += bytes.length - first.bytes.length;
    this.#kept[0] = { bytes, from };
  }

  #keep(chunk: Chunk, from: number, first: boolean): void {
    this.#keptSize += chunk.length;
    if (this.#keptSize > this.#keptLimit + OVERRUN) {
      this.connection.close("abort");
      return;
    }
    if (this.#keptSize >= this.#keptLimit && !this.#paused) {
      this.#paused = true;
      this.connection.pause();
    }
    const entry = { bytes: chunk.copy(), from };
    if (first) this.#kept.unshift(entry);
    else this.#kept.push(entry);
  }

  /** Called by a filter that has stopped the chain, or by its promise. */
  resumeReading(at: number): void {
    if (this.#over) return;
    if (this.#walking) {
      this.#resumeAsked = true;
      return;
    }
    if (this.#stoppedAt !== at) return;
    this.#stoppedAt = -1;
    this.#timer?.cancel();
    this.#go(at + 1);
    while (this.#stoppedAt < 0 && this.#kept.length > 0 && !this.#over) {
      const { bytes, from } = this.#kept.shift()!;
      this.#keptSize -= bytes.length;
      this.#chunk.replace(bytes);
      this.#walk(from, this.#chunk, false);
    }
    if (this.#stoppedAt >= 0 || this.#over) return;
    if (this.#ended && !this.#endDelivered) {
      this.#endDelivered = true;
      this.#chunk.replace(EMPTY);
      this.#walk(this.#endFrom, this.#chunk, true);
    }
    if (this.#paused && this.#stoppedAt < 0) {
      this.#paused = false;
      this.connection.resume();
    }
  }

  /** Undefined: a filter but the last wants bytes of the connection, or the two connections cannot be relayed. */
  relay(at: number, upstream: Pick<Connection, "relayWith">): Relay | undefined {
    const seen = this.#filters.some((filter, k) => k !== at && filter.onData !== undefined);
    if (seen || this.#stoppedAt >= 0 || this.#keptSize > 0) return undefined;
    return upstream.relayWith?.(this.connection);
  }

  onRelayed(bytes: number, size: number, at: number): void {
    this.#filters.at(-1)?.onRelayed?.(bytes, size, at);
  }

  onBlocked(): void {
    for (const filter of this.#filters) filter.onBlocked?.();
  }

  onDrained(): void {
    for (const filter of this.#filters) filter.onDrained?.();
  }

  onAgain(): void {
    for (const filter of this.#filters) filter.onAgain?.();
  }

  /** Packages have changed: a connection that runs older generations than a new one would is drained. */
  onPackagesChanged(
    slots: readonly Slot<NetworkFilterFactory>[],
    transport: Slot<TransportFactory> | undefined,
    drain: Drain,
  ): void {
    if (this.#over || this.connection.draining) return;
    const isOld =
      slots.some((slot, k) => slot.current !== this.#generations[k]) ||
      transport?.current !== this.transport;
    if (isOld) this.drain(drain);
    else for (const filter of this.#filters) filter.onPackagesChanged?.();
  }

  drain(drain: Drain): void {
    this.connection.draining = true;
    for (const filter of this.#filters) filter.onDrain?.(drain);
  }

  onClosed(event: CloseEvent): void {
    this.#over = true;
    this.#timer?.cancel();
    this.#kept.length = 0;
    try {
      for (const filter of this.#filters) filter.onClose?.(event);
    } finally {
      for (const generation of this.#generations) generation.release();
      this.#generations.length = 0;
      this.#onEnd(event);
    }
  }
}

const EMPTY = new Uint8Array(0);

/** The chain as one of its filters sees it. */
class ChainHold implements NetworkChain {
  readonly #run: NetworkChainRun;
  readonly #at: number;

  constructor(run: NetworkChainRun, at: number) {
    this.#run = run;
    this.#at = at;
  }
  resumeReading(): void {
    this.#run.resumeReading(this.#at);
  }
  injectWrite(bytes: Uint8Array, endStream = false): void {
    this.#run.connection.injectWrite(this.#at, bytes, endStream);
  }
  relay(upstream: Pick<Connection, "relayWith">): Relay | undefined {
    return this.#run.relay(this.#at, upstream);
  }
}
