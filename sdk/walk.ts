// Hot path: both directions of every stream.
import { ByteQueue } from "./byte-queue.ts";
import { Chunk, copyBytes } from "./bytes.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import {
  type Done,
  type EndResult,
  type Hold,
  type HttpFilter,
  type LastChunk,
  type PromptAnswer,
  type Reply,
  reply,
  type Verdict,
} from "./http.ts";
import { HTTP_VERDICTS, NoVerdict } from "./no-verdict.ts";

/** What ends a walk where filters fail, and where they hold more of a body than they may: Envoy's answers. */
export const FILTER_FAILED = reply(500, {
  body: "Internal Server Error",
  details: "filter_error",
});
/** Answers a request whose body passes what a filter or route lets it be. */
export const REQUEST_TOO_LARGE = reply(413, {
  body: "Payload Too Large",
  details: "request_payload_too_large",
});
/** Answers in the place of a response whose body passes what a filter lets it be. */
export const RESPONSE_TOO_LARGE = reply(500, {
  body: "Internal Server Error",
  details: "response_payload_too_large",
});

const EMPTY = new Uint8Array(0);
/**
 * Bytes of one direction that may wait while a filter decides. The source is paused meanwhile: little more than one read comes.
 */
const KEPT_LIMIT = 1024 * 1024;
/** A buffer up to this size is kept for the next stream. */
const KEPT_FOR_NEXT = 16 * 1024;

/** What a walk is part of: a stream of the connection manager, or an attempt of the router with upstream filters. */
export interface WalkOwner {
  onReply(reply: Reply, response: boolean): void;
  onFilterError(error: unknown, filter: number, response: boolean): void;
  /** There is more body than may be held. `isWhole`: a filter before has held it until its end. */
  onTooLarge(response: boolean, isWhole: boolean): void;
  /**
   * A PromptAnswer has settled and its verdict was carried out, or it will only settle after the event. The owner must now copy
   * what it still keeps in the event's bytes. Absent: it keeps nothing there.
   */
  onPromptEnd?(response: boolean): void;
  /** Bytes that a hold with `max: 0` may gather. Default: 1 MiB. */
  readonly bodyLimit?: number;
  /** A filter waits for its promise (true), so the source has to pause; or it has decided (false). */
  onWaiting(waiting: boolean, response: boolean): void;
  /** The end of the chain in the response direction. */
  encodeHead(headers: ResponseHeaders, endStream: boolean): void;
  encodeBody(chunk: Chunk, endStream: boolean): void;
  encodeTrailers(trailers: HeaderMap): void;
}

/**
 * One direction of a stream on its way through the filters.
 *
 *   head ──► filter 0 ──► filter 1 ──► … ──► end of the chain
 *                 ▲ holds the head until the body is there (`hold`)
 *   body ──►──────┘
 *
 * One event is under way at a time: the head, a chunk, or the trailers. It goes from filter to filter until one answers, throws
 * or returns a promise (which may settle at once, within our call of `then`); what arrives meanwhile is copied and waits at the
 * entry. Positions count in the direction of the walk, so position 0 of a response is the last filter.
 */
export class Walk {
  /** A verdict is awaited. */
  waiting = false;
  /** Nothing moves any more: answered, reset or ended. */
  over = true;
  readonly #owner: WalkOwner;
  readonly #response: boolean;
  #filters: (HttpFilter | undefined)[] = [];
  #count = 0;
  #head: HeaderMap | undefined = undefined;
  #headEnd = false;
  /** The next position to see the head; count: the end of the chain; beyond: done. */
  #headAt = 0;
  /** The position that keeps the head back, or -1. */
  #holdingAt = -1;
  #hold: Hold | undefined = undefined;
  /** The largest body that a filter has asked to hold; 0: none has named a size. */
  largestHold = 0;
  #held = new ByteQueue();
  #heldSize = 0;
  /** Position of the chunk under way, or -1. */
  #bodyAt = -1;
  readonly #chunk = new Chunk(EMPTY, 0, 0);
  #chunkEnd = false;
  #lent = false;
  /** The chunk under way is a whole body that a filter has held. */
  #isWhole = false;
  /** Position of the trailers under way, or -1. */
  #trailersAt = -1;
  #trailers: HeaderMap | undefined = undefined;
  /**
   * Two buffers that change places: what has arrived while a filter waits (`#kept`), and the chunk that it has been given
   * (`#underWay`).
   */
  #kept: Uint8Array = EMPTY;
  #keptSize = 0;
  /** The first bytes that arrived while a filter waits: not copied until the event that brought them ends. */
  #lentMemory: Uint8Array | undefined = undefined;
  #lentAt = 0;
  #lentEnd = 0;
  #underWay: Uint8Array = EMPTY;
  #keptEnd = false;
  #keptTrailers: HeaderMap | undefined = undefined;
  /** The filter that was asked last. */
  #askedAt = 0;
  /** Counts the promises awaited: a verdict that belongs to an older one is dropped. */
  #ticket = 0;
  #running = false;
  #told = false;
  /** The awaited promise is a PromptAnswer: until it is late, nothing is copied and the owner is not told to wait. */
  #prompt = false;
  readonly #onLate = (): void => {
    this.#prompt = false;
    if (!this.waiting || this.over || this.#running) return;
    this.#becomeLate();
    this.#owner.onPromptEnd?.(this.#response);
  };

  constructor(owner: WalkOwner, response: boolean) {
    this.#owner = owner;
    this.#response = response;
  }

  begin(filters: (HttpFilter | undefined)[]): void {
    this.#ticket++;
    this.#filters = filters;
    this.#count = filters.length;
    this.over = false;
    this.waiting = false;
    this.#head = undefined;
    this.#headAt = 0;
    this.#holdingAt = -1;
    this.#hold = undefined;
    this.largestHold = 0;
    this.#heldSize = 0;
    this.#bodyAt = -1;
    this.#trailersAt = -1;
    this.#trailers = undefined;
    this.#keptSize = 0;
    this.#keptEnd = false;
    this.#keptTrailers = undefined;
    this.#running = false;
    this.#told = false;
    this.#prompt = false;
    this.#isWhole = false;
    this.#lentMemory = undefined;
    if (this.#held.size > 0) this.#held = new ByteQueue();
    if (this.#kept.length > KEPT_FOR_NEXT) this.#kept = EMPTY;
    if (this.#underWay.length > KEPT_FOR_NEXT) this.#underWay = EMPTY;
  }

  /** Verdicts that are still awaited count no more. */
  stop(): void {
    this.over = true;
    this.#ticket++;
  }

  /** A verdict may come before the event ends. */
  get isPrompt(): boolean {
    return this.waiting && this.#prompt;
  }

  get begun(): boolean {
    return this.#head !== undefined;
  }

  head(headers: HeaderMap, endStream: boolean): void {
    this.#head = headers;
    this.#headEnd = endStream;
    this.#run();
  }

  body(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    if (this.over) return;
    if (this.waiting || this.#running) {
      this.#keep(memory, at, end);
      this.#keptEnd = endStream;
      return;
    }
    const chunk = this.#chunk;
    chunk.memory = memory;
    chunk.at = at;
    chunk.end = end;
    this.#lent = true;
    this.#chunkEnd = endStream;
    this.#bodyAt = 0;
    this.#run();
  }

  trailers(trailers: HeaderMap): void {
    if (this.over) return;
    if (this.waiting || this.#running) {
      trailers.detach();
      this.#keptTrailers = trailers;
      return;
    }
    this.#trailers = trailers;
    this.#trailersAt = 0;
    this.#run();
  }

  #keep(memory: Uint8Array, at: number, end: number): void {
    if (this.#prompt && this.#keptSize === 0 && this.#lentMemory === undefined) {
      this.#lentMemory = memory;
      this.#lentAt = at;
      this.#lentEnd = end;
      return;
    }
    this.#keepLent();
    this.#append(memory, at, end);
  }

  #append(memory: Uint8Array, at: number, end: number): void {
    const before = this.#keptSize;
    this.#keptSize += end - at;
    if (this.#keptSize > KEPT_LIMIT) {
      this.#owner.onTooLarge(this.#response, false);
      return;
    }
    if (this.#keptSize > this.#kept.length) {
      const bigger = new Uint8Array(Math.max(1024, this.#keptSize * 2));
      bigger.set(this.#kept.subarray(0, before));
      this.#kept = bigger;
    }
    copyBytes(this.#kept, before, memory, at, end - at);
  }

  #keepLent(): void {
    const memory = this.#lentMemory;
    if (memory === undefined) return;
    this.#lentMemory = undefined;
    this.#append(memory, this.#lentAt, this.#lentEnd);
  }

  /** The event that brought the chunk ends before the verdict on it comes. */
  #keepChunk(): void {
    const chunk = this.#chunk;
    const size = chunk.length;
    if (size > this.#underWay.length) this.#underWay = new Uint8Array(Math.max(1024, size));
    copyBytes(this.#underWay, 0, chunk.memory, chunk.at, size);
    chunk.memory = this.#underWay;
    chunk.at = 0;
    chunk.end = size;
    this.#lent = false;
  }

  #run(): void {
    this.#running = true;
    try {
      while (!this.waiting && !this.over && this.#step()) {}
    } catch (error) {
      this.#running = false;
      this.#owner.onFilterError(error, this.#filterAt(this.#askedAt), this.#response);
      return;
    }
    this.#running = false;
    if (this.waiting && !this.over && !this.#prompt) this.#becomeLate();
  }

  /** The event ends before the verdict comes. */
  #becomeLate(): void {
    this.#keepLent();
    if (this.#bodyAt >= 0 && this.#lent) this.#keepChunk();
    this.#trailers?.detach();
    if (!this.#told) {
      this.#told = true;
      this.#owner.onWaiting(true, this.#response);
    }
  }

  /** Moves whatever is first in order by one filter. False: nothing is left to move. */
  #step(): boolean {
    if (this.#headAt <= this.#count && this.#holdingAt < 0 && this.#head !== undefined) {
      this.#stepHead(this.#head);
      return true;
    }
    if (this.#bodyAt >= 0) {
      this.#stepBody();
      return true;
    }
    if (this.#trailersAt >= 0) {
      this.#stepTrailers(this.#trailers!);
      return true;
    }
    return this.#takeKept();
  }

  #stepHead(head: HeaderMap): void {
    const at = this.#headAt++;
    if (at === this.#count) {
      if (this.#response) this.#owner.encodeHead(head as ResponseHeaders, this.#headEnd);
      return;
    }
    const filter = this.#filters[this.#filterAt(at)];
    if (filter === undefined) return;
    this.#askedAt = at;
    const result = this.#response
      ? filter.onResponseHeaders?.(head as ResponseHeaders, this.#headEnd)
      : filter.onRequestHeaders?.(head as RequestHeaders, this.#headEnd);
    if (result !== undefined) this.#take(result, true);
  }

  #stepBody(): void {
    const at = this.#bodyAt;
    if (this.#holdingAt >= 0) {
      // Past the filter that holds: the head goes first, and this chunk after it.
      if (at > this.#holdingAt) {
        if (this.#trailersAt === this.#holdingAt && this.#hold!.trailers) {
          this.#askAboutTrailers(this.#trailers!);
        } else this.#release();
        return;
      }
      if (at === this.#holdingAt && this.#hold!.body === "buffer" && !this.#gather()) return;
    }
    if (at === this.#count) {
      this.#bodyAt = -1;
      if (this.#response) this.#owner.encodeBody(this.#chunk, this.#chunkEnd);
      return;
    }
    this.#bodyAt = at + 1;
    const filter = this.#filters[this.#filterAt(at)];
    if (filter === undefined) return;
    this.#askedAt = at;
    const result = this.#response
      ? filter.onResponseBody?.(this.#chunk, this.#chunkEnd)
      : filter.onRequestBody?.(this.#chunk, this.#chunkEnd);
    if (result !== undefined) this.#take(result, false);
  }

  /** Adds the chunk to what is held. True: that was all, and the chunk is now the whole body. */
  #gather(): boolean {
    const chunk = this.#chunk;
    this.#heldSize += chunk.length;
    const { max: most, exceptLast } = this.#hold!;
    const bodyLimit = this.#owner.bodyLimit ?? KEPT_LIMIT;
    const isOnly = this.#chunkEnd && this.#held.size === 0 && !this.#isWhole;
    const isFree = exceptLast && isOnly && chunk.length <= bodyLimit;
    const max = most === 0 ? bodyLimit : most;
    if (!isFree && this.#heldSize > max) {
      this.#owner.onTooLarge(this.#response, this.#isWhole);
      return false;
    }
    if (!this.#chunkEnd && this.#trailersAt < 0) {
      this.#held.push(chunk.memory, chunk.at, chunk.end);
      this.#bodyAt = -1;
      return false;
    }
    if (!isFree) this.#isWhole = true;
    if (this.#held.size > 0) this.#joinHeld();
    return true;
  }

  #joinHeld(): void {
    const held = this.#held;
    held.push(this.#chunk.memory, this.#chunk.at, this.#chunk.end);
    this.#held = new ByteQueue();
    this.#chunk.replace(held.join());
    this.#lent = false;
  }

  #release(): void {
    this.#holdingAt = -1;
    this.#hold = undefined;
    this.#heldSize = 0;
    this.#headEnd = false;
  }

  #stepTrailers(trailers: HeaderMap): void {
    const at = this.#trailersAt;
    if (this.#holdingAt >= 0 && at === this.#holdingAt) {
      // The body has ended without a last chunk: what is held goes on as one.
      this.#chunk.replace(EMPTY);
      this.#lent = false;
      this.#chunkEnd = false;
      this.#bodyAt = at;
      return;
    }
    if (at === this.#count) {
      this.#trailersAt = -1;
      if (this.#response) this.#owner.encodeTrailers(trailers);
      return;
    }
    this.#askAboutTrailers(trailers);
  }

  #askAboutTrailers(trailers: HeaderMap): void {
    const at = this.#trailersAt++;
    const filter = this.#filters[this.#filterAt(at)];
    if (filter === undefined) return;
    this.#askedAt = at;
    const result = this.#response
      ? filter.onResponseTrailers?.(trailers)
      : filter.onRequestTrailers?.(trailers);
    if (result !== undefined) this.#take(result, false);
  }

  /** The filter at that position ends the message with these bytes. */
  #endWith(at: number, bytes: Uint8Array): void {
    this.#trailersAt = -1;
    this.#trailers = undefined;
    // Behind a body that this filter still holds.
    const held = this.#bodyAt >= 0 ? this.#chunk.copy() : EMPTY;
    this.#chunk.replace(held.length > 0 ? concat(held, bytes) : bytes);
    this.#lent = false;
    this.#chunkEnd = true;
    this.#bodyAt = at + 1;
  }

  #takeKept(): boolean {
    const lent = this.#lentMemory;
    if (lent !== undefined) {
      this.#lentMemory = undefined;
      const chunk = this.#chunk;
      chunk.memory = lent;
      chunk.at = this.#lentAt;
      chunk.end = this.#lentEnd;
      this.#lent = true;
      this.#chunkEnd = this.#keptEnd;
      this.#keptEnd = false;
      this.#bodyAt = 0;
      return true;
    }
    if (this.#keptSize > 0 || this.#keptEnd) {
      const taken = this.#kept;
      this.#kept = this.#underWay;
      this.#underWay = taken;
      const chunk = this.#chunk;
      chunk.memory = taken;
      chunk.at = 0;
      chunk.end = this.#keptSize;
      this.#lent = false;
      this.#chunkEnd = this.#keptEnd;
      this.#keptSize = 0;
      this.#keptEnd = false;
      this.#bodyAt = 0;
      return true;
    }
    if (this.#keptTrailers === undefined) return false;
    this.#trailers = this.#keptTrailers;
    this.#keptTrailers = undefined;
    this.#trailersAt = 0;
    return true;
  }

  #take(result: Exclude<EndResult, undefined>, onHead: boolean): void {
    if (result !== null && typeof (result as PromiseLike<Verdict>).then === "function") {
      this.#wait(result as PromiseLike<Verdict | LastChunk>, onHead);
    } else this.#decide(result as Reply | Hold | Done | LastChunk, onHead);
  }

  #wait(promise: PromiseLike<Verdict | LastChunk>, onHead: boolean): void {
    const ticket = ++this.#ticket;
    const at = this.#askedAt;
    this.waiting = true;
    this.#prompt = "onLate" in promise;
    if (this.#prompt) (promise as PromptAnswer).onLate(this.#onLate);
    promise.then(
      (verdict) => {
        if (ticket === this.#ticket) this.#settle(at, verdict, onHead);
      },
      (error) => {
        if (ticket === this.#ticket) this.#fail(at, error);
      },
    );
  }

  #settle(at: number, verdict: Verdict | LastChunk, onHead: boolean): void {
    const wasPrompt = this.#prompt;
    this.#ticket++;
    this.waiting = false;
    this.#prompt = false;
    this.#askedAt = at;
    try {
      if (verdict !== undefined) this.#decide(verdict, onHead);
    } catch (error) {
      this.#fail(at, error);
      return;
    }
    // The promise settled within our call of `then`: the loop that made the call is still running and goes on.
    if (this.#running) return;
    this.#run();
    if (wasPrompt && !this.#prompt) this.#owner.onPromptEnd?.(this.#response);
    if (!this.waiting && this.#told && !this.over) {
      this.#told = false;
      this.#owner.onWaiting(false, this.#response);
    }
  }

  #fail(at: number, error: unknown): void {
    this.#ticket++;
    this.waiting = false;
    this.#owner.onFilterError(error, this.#filterAt(at), this.#response);
  }

  /** Throws on what is no verdict. */
  #decide(verdict: Reply | Hold | Done | LastChunk | null, onHead: boolean): void {
    // A filter in plain JavaScript may answer anything, null too.
    switch (verdict?.type) {
      case "last_chunk":
        // Of a head it is the body, which follows it, if there is no other.
        if (onHead && !this.#headEnd) break;
        this.#headEnd = false;
        this.#endWith(this.#askedAt, verdict.bytes);
        break;
      case "reply":
        this.#owner.onReply(verdict, this.#response);
        break;
      case "hold":
        // Without a body there is nothing to wait for.
        if (onHead && !this.#headEnd) {
          this.#holdingAt = this.#askedAt;
          this.#hold = verdict;
          this.largestHold = Math.max(this.largestHold, verdict.max);
        }
        break;
      case "done":
        this.#filters[this.#filterAt(this.#askedAt)] = undefined;
        break;
      default:
        throw new NoVerdict(verdict, HTTP_VERDICTS);
    }
  }

  #filterAt(position: number): number {
    return this.#response ? this.#count - 1 - position : position;
  }
}

function concat(a: Uint8Array, b: Uint8Array): Uint8Array {
  const all = new Uint8Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
