// Hot path: every write of a connection with a filter that has `onWrite`.
import { assertNetworkVerdict, Chunk, type NetworkFilter, stop } from "@tsproxy/sdk";
import type { WheelTimer } from "./timers.ts";

/** Waiting writes are joined up to this size, so that a filter that answers slowly is called less often. */
const PIECE = 64 * 1024;

/** The connection whose writes pass the filters. */
export interface WriteOwner {
  readonly open: boolean;
  /** A connection is closed when a filter's promise has been pending for this long. */
  readonly longestPauseMs: number;
  /** Writes bytes that have passed all filters. */
  pass(memory: Uint8Array, at: number, end: number, endStream: boolean): void;
  onWritesPaused(): void;
  onWritesPassed(): void;
  /** A timer that closes the connection, for a filter's promise that does not settle. */
  pauseTimer(): WheelTimer;
  /** Reports what a filter has thrown, and closes the connection. */
  fail(error: unknown): void;
}

/**
 * The network filters of one connection that have `onWrite`, called for bytes to the client, the last of the chain first. While a
 * filter's promise is pending later writes wait before it, and the connection is blocked.
 */
export class WriteChain {
  readonly connection: WriteOwner;
  /** For each filter of the chain, the first stage that its injected bytes pass; undefined: they pass none. */
  readonly #below: (WriteStage | undefined)[] = [];
  readonly #first: WriteStage | undefined = undefined;
  #pending = 0;

  constructor(connection: WriteOwner, filters: readonly NetworkFilter[]) {
    this.connection = connection;
    for (const filter of filters) {
      this.#below.push(this.#first);
      if (filter.onWrite !== undefined) this.#first = new WriteStage(this, filter, this.#first);
    }
  }

  /** Some filter's promise is pending. */
  get waits(): boolean {
    return this.#pending > 0;
  }

  /** Bytes written to the connection; they are lent. */
  write(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#first!.write(memory, at, end, endStream);
  }

  /** Bytes that the filter at `place` injects; only filters before it see them. */
  inject(place: number, bytes: Uint8Array, endStream: boolean): void {
    const stage = this.#below[place];
    if (stage !== undefined) stage.write(bytes, 0, bytes.length, endStream);
    else this.connection.pass(bytes, 0, bytes.length, endStream);
  }

  onPaused(): void {
    if (this.#pending++ === 0) this.connection.onWritesPaused();
  }

  onResumed(): void {
    if (--this.#pending === 0) this.connection.onWritesPassed();
  }
}

/** One filter, and the writes that wait for its pending promise. */
class WriteStage {
  readonly #chain: WriteChain;
  readonly #filter: NetworkFilter;
  readonly #next: WriteStage | undefined;
  #isBusy = false;
  readonly #kept: { readonly bytes: Uint8Array; readonly endStream: boolean }[] = [];
  #timer: WheelTimer | undefined = undefined;

  constructor(chain: WriteChain, filter: NetworkFilter, next: WriteStage | undefined) {
    this.#chain = chain;
    this.#filter = filter;
    this.#next = next;
  }

  write(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    // Bounded, since writers pause while the connection is blocked.
    if (this.#isBusy) this.#kept.push({ bytes: memory.slice(at, end), endStream });
    else {
      this.#ask(new Chunk(memory, at, end), endStream);
      this.#drain();
    }
  }

  #drain(): void {
    while (!this.#isBusy && this.#kept.length > 0 && this.#chain.connection.open) {
      const { bytes, endStream } = this.#takePiece();
      this.#ask(new Chunk(bytes, 0, bytes.length), endStream);
    }
  }

  #takePiece(): { readonly bytes: Uint8Array; readonly endStream: boolean } {
    const kept = this.#kept;
    let count = 1;
    let size = kept[0]!.bytes.length;
    while (count < kept.length && size + kept[count]!.bytes.length <= PIECE)
      size += kept[count++]!.bytes.length;
    const pieces = kept.splice(0, count);
    const { endStream } = pieces[count - 1]!;
    if (count === 1) return pieces[0]!;
    const bytes = new Uint8Array(size);
    let at = 0;
    for (const piece of pieces) {
      bytes.set(piece.bytes, at);
      at += piece.bytes.length;
    }
    return { bytes, endStream };
  }

  #ask(chunk: Chunk, endStream: boolean): void {
    const { connection } = this.#chain;
    this.#isBusy = true;
    try {
      const result = this.#filter.onWrite!(chunk, endStream);
      if (result === undefined) this.#pass(chunk, endStream);
      else {
        assertNetworkVerdict(result, false);
        if (result !== stop) {
          this.#await(result, chunk, endStream);
          return;
        }
      }
    } catch (error) {
      connection.fail(error);
    }
    this.#isBusy = false;
  }

  #pass({ memory, at, end }: Chunk, endStream: boolean): void {
    if (this.#next !== undefined) this.#next.write(memory, at, end, endStream);
    else this.#chain.connection.pass(memory, at, end, endStream);
  }

  /** False: the filter's promise has come to something else, which costs its connection. */
  #isVerdict(settled: unknown): boolean {
    try {
      assertNetworkVerdict(settled, true);
      return true;
    } catch (error) {
      this.#chain.connection.fail(error);
      return false;
    }
  }

  #await(
    result: PromiseLike<void | Uint8Array | typeof stop>,
    chunk: Chunk,
    endStream: boolean,
  ): void {
    const { connection } = this.#chain;
    // The lent bytes end here; the filter goes on with a copy.
    chunk.replace(chunk.copy());
    this.#timer ??= connection.pauseTimer();
    this.#timer.arm(connection.longestPauseMs);
    this.#chain.onPaused();
    const settle = (): boolean => {
      this.#timer!.cancel();
      this.#isBusy = false;
      return connection.open;
    };
    result.then(
      (bytes) => {
        if (settle() && this.#isVerdict(bytes)) {
          if (bytes !== undefined && bytes !== stop) chunk.replace(bytes);
          this.#isBusy = true;
          if (bytes !== stop) this.#pass(chunk, endStream);
          this.#isBusy = false;
          this.#drain();
        } else this.#kept.length = 0;
        this.#chain.onResumed();
      },
      (error) => {
        if (settle()) connection.fail(error);
        this.#chain.onResumed();
      },
    );
  }
}
