// Hot path: every record of an HTTP stream is handled here (test/bench/sandbox.ts).
import {
  Chunk,
  HTTP_VERDICTS,
  type LastChunk,
  latin1Decode,
  NoVerdict,
  type Reply,
  utf8Encode,
  type Verdict,
} from "@tsproxy/sdk";
import type { HeadExtras } from "./head.ts";
import {
  ANSWER,
  CHUNK_MAX,
  FOLLOW,
  HOOK,
  KIND,
  PART_SIZE,
  RECORD,
  RECORD_FLAG,
  RECORD_WORDS,
  VERDICT,
  VERDICT_FLAG,
  VERDICT_TYPE,
} from "./layout.ts";
import { measureReply, writeReply } from "./reply.ts";
import { type HttpUse, STATES_KEPT, StreamState, takeRequest } from "./stream-state.ts";
import { SandboxStream } from "./stream-view.ts";
import type { Surroundings } from "./surroundings.ts";

/** What a hook was called with, kept until its promise settles. [at, end) of `memory` is the chunk as the hook got it. */
interface Call {
  readonly kind: number;
  readonly chunk: Chunk | undefined;
  readonly memory: Uint8Array;
  readonly at: number;
  readonly end: number;
}

type Answer = Verdict | LastChunk;

/** The state of the stream whose record is at word `place` of the table, created if it is new. Throws what its factory throws. */
type FollowerAt = (place: number, leader: StreamState) => StreamState;

/** The HTTP streams that pass through this sandbox. */
export class StreamTable {
  readonly #around: Surroundings;
  readonly #uses = new Map<number, HttpUse>();
  readonly #spare: StreamState[] = [];
  readonly #followerAt: FollowerAt;

  constructor(around: Surroundings, followerAt: FollowerAt) {
    this.#around = around;
    this.#followerAt = followerAt;
  }

  addUse(use: HttpUse): void {
    this.#uses.set(use.id, use);
  }

  removeUse(id: number): void {
    this.#uses.delete(id);
  }

  /** A stream begins. Undefined: its use is not known. Throws what the factory throws. */
  create(token: number, words: Int32Array, w: number, range: number): StreamState | undefined {
    const use = this.#uses.get(words[w + RECORD.USE]!);
    if (use === undefined) return undefined;
    const state = this.#spare.pop() ?? new StreamState();
    state.request = takeRequest();
    state.request.head.read(this.#around, w + RECORD.PAYLOAD, range, state);
    return this.#make(state, use, token);
  }

  /** A follower begins, sharing the heads of the filter before it (`leader`). */
  createFollower(
    token: number,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
    leader: StreamState,
  ): StreamState {
    const use = this.#uses.get(words[w + RECORD.USE]!);
    if (use === undefined) throw new Error("its use is not known here");
    const state = this.#spare.pop() ?? new StreamState();
    state.share(leader);
    readFollow(words, bytes, w, state);
    return this.#make(state, use, token);
  }

  /** A follower that exists already shares the heads of the filter before it from now on. */
  updateFollower(
    state: StreamState,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
    leader: StreamState,
  ): void {
    state.share(leader);
    readFollow(words, bytes, w, state);
    state.learn();
  }

  #make(state: StreamState, use: HttpUse, token: number): StreamState {
    state.token = token;
    state.use = use;
    const stream = new SandboxStream(this.#around, state, token);
    state.stream = stream;
    state.facts = undefined;
    const filter = use.factory(stream);
    if (typeof filter !== "object" || filter === null) {
      throw new TypeError("the factory of setup did not return a filter object");
    }
    state.filter = filter;
    state.hooks =
      (filter.onRequestHeaders === undefined ? 0 : HOOK.REQUEST_HEADERS) |
      (filter.onRequestBody === undefined ? 0 : HOOK.REQUEST_BODY) |
      (filter.onRequestTrailers === undefined ? 0 : HOOK.REQUEST_TRAILERS) |
      (filter.onResponseHeaders === undefined ? 0 : HOOK.RESPONSE_HEADERS) |
      (filter.onResponseBody === undefined ? 0 : HOOK.RESPONSE_BODY) |
      (filter.onResponseTrailers === undefined ? 0 : HOOK.RESPONSE_TRAILERS);
    return state;
  }

  end(state: StreamState): void {
    try {
      state.filter?.onEnd?.();
    } catch (error) {
      this.#around.thrown(state.token, "onEnd", error);
    }
    state.stream?.close();
    state.reset();
    if (this.#spare.length < STATES_KEPT) this.#spare.push(state);
  }

  /**
   * Calls one hook. The record begins at word `w`, its range is [range, rangeEnd); its entry in the table is at word `place`, and
   * the next `followers` entries follow it.
   */
  run(
    state: StreamState,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
    range: number,
    rangeEnd: number,
    place: number,
    followers: number,
  ): void {
    const kind = words[w]! & 0xff;
    const endStream = ((words[w]! >> 8) & RECORD_FLAG.END_STREAM) !== 0;
    const filter = state.filter!;
    let chunk: Chunk | undefined;
    let memory = bytes;
    let at = range;
    let end = rangeEnd;
    let result: unknown;
    try {
      switch (kind) {
        case KIND.REQUEST_HEADERS:
          result = filter.onRequestHeaders?.(state.request!.head.map, endStream);
          if (result !== undefined && !endStream) result = early(result);
          break;
        case KIND.RESPONSE_HEADERS:
          state.beginResponse();
          state.response!.head.read(this.#around, w + RECORD.PAYLOAD, range, state);
          state.learn();
          result = filter.onResponseHeaders?.(state.response!.head.map, endStream);
          break;
        case KIND.REQUEST_BODY:
        case KIND.RESPONSE_BODY: {
          const lane = kind === KIND.REQUEST_BODY ? 0 : 1;
          const parts = state.body(lane)?.parts;
          if (parts !== undefined && parts.length > 0) {
            memory = joined(parts, bytes, at, end);
            parts.length = at = 0;
            end = memory.length;
          }
          chunk = new Chunk(memory, at, end);
          result =
            lane === 0
              ? filter.onRequestBody?.(chunk, endStream)
              : filter.onResponseBody?.(chunk, endStream);
          break;
        }
        default: {
          const lane = kind === KIND.REQUEST_TRAILERS ? 0 : 1;
          const trailers = state.trailers(lane);
          trailers.read(this.#around, w + RECORD.PAYLOAD, range, state);
          state.learn();
          result =
            lane === 0
              ? filter.onRequestTrailers?.(trailers.map)
              : filter.onResponseTrailers?.(trailers.map);
        }
      }
    } catch (error) {
      this.#fault(state, kind, error);
      return;
    }
    if (followers > 0 && result === undefined) {
      this.#runFollowers(state, kind, endStream, place, followers);
      return;
    }
    this.#finish(state, kind, result, bytes, chunk, memory, at, end);
  }

  /** Calls the hooks of the followers, until one does not let the head pass at once. Answers for all of them. */
  #runFollowers(
    state: StreamState,
    kind: number,
    endStream: boolean,
    place: number,
    followers: number,
  ): void {
    const isRequest = kind === KIND.REQUEST_HEADERS;
    let passed = 0;
    let hooks = 0;
    let next: StreamState | undefined;
    let result: unknown;
    let failure: { readonly error: unknown } | undefined;
    while (passed < followers) {
      try {
        next = this.#followerAt(place + (1 + passed) * RECORD_WORDS, state);
        result = isRequest
          ? next.filter!.onRequestHeaders?.(next.request!.head.map, endStream)
          : next.filter!.onResponseHeaders?.(next.response!.head.map, endStream);
      } catch (error) {
        failure = { error };
        break;
      }
      if (result !== undefined) break;
      passed++;
      hooks |= next.hooks;
      state.clearRoute ||= next.clearRoute;
      next.clearRoute = false;
    }
    if (isRequest && result !== undefined && !endStream) result = early(result);
    const isStopped = failure !== undefined || result !== undefined;
    const call = { kind, chunk: undefined, memory: NO_BYTES, at: 0, end: 0 };
    this.#answer(state, call, undefined, passed | (isStopped ? STOPPED : 0) | (hooks << 16));
    if (!isStopped) return;
    (isRequest ? state.request! : state.response!).head.settle();
    if (failure === undefined) {
      this.#finish(next!, kind, result, NO_BYTES, undefined, NO_BYTES, 0, 0);
      return;
    }
    const words = this.#around.words;
    const record = words[place + (1 + passed) * RECORD_WORDS]! >> 2;
    const token = words[record + RECORD.TOKEN]!;
    this.fail(token, HOOK_OF_KIND[kind] ?? "hook", failure.error);
  }

  /** Answers a hook's result, at once or when its promise settles. */
  #finish(
    state: StreamState,
    kind: number,
    result: unknown,
    bytes: Uint8Array,
    chunk: Chunk | undefined,
    memory: Uint8Array,
    at: number,
    end: number,
  ): void {
    if (typeof (result as PromiseLike<Answer> | undefined)?.then !== "function") {
      this.#answer(state, { kind, chunk, memory, at, end }, result as Answer);
      return;
    }
    if (chunk !== undefined && chunk.memory === bytes) {
      // The block's bytes are valid for this entry only; the filter goes on with a copy.
      const replaced = chunk.at !== at || chunk.end !== end;
      memory = chunk.copy();
      if (!replaced) {
        at = 0;
        end = memory.length;
      }
      chunk.replace(memory);
    }
    const call: Call = { kind, chunk, memory, at, end };
    const token = state.token;
    (result as PromiseLike<Answer>).then(
      (verdict) => {
        if (state.token === token) this.#answer(state, call, verdict);
      },
      (error) => {
        if (state.token === token) this.#fault(state, kind, error);
      },
    );
  }

  /** A FACTS record. */
  learn(state: StreamState, words: Int32Array, bytes: Uint8Array, w: number): void {
    const at = (w + RECORD.PAYLOAD) * 4;
    state.stream?.learn(latin1Decode(bytes, at, at + words[w + RECORD.ARGUMENT]!));
  }

  /** A PART record: kept until the rest of the chunk comes. */
  part(state: StreamState, lane: number, bytes: Uint8Array, at: number, end: number): void {
    const { parts } = state.keepBody(lane);
    let size = end - at;
    for (const part of parts) size += part.length;
    if (size <= CHUNK_MAX) parts.push(bytes.slice(at, end));
    this.#around.outbox.open(ANSWER.ACK, state.token | lane, 0, 0);
    this.#around.outbox.close();
  }

  /** `returned`: the filter, if the hook did not throw, but must not have done what it did. */
  #fault(state: StreamState, kind: number, error: unknown, returned?: object): void {
    const hook = HOOK_OF_KIND[kind] ?? "hook";
    this.fail(state.token | laneOf(kind), hook, error, returned);
  }

  /** Reports a fault of a hook, and answers FAULT; the failure policy then decides about this stream. */
  fail(token: number, hook: string, error: unknown, returned?: object): void {
    const { outbox } = this.#around;
    this.#around.thrown(token, hook, error, returned);
    const at = outbox.open(ANSWER.VERDICT, token, 0, VERDICT.REST * 4);
    const w = at >> 2;
    outbox.words[w + VERDICT.TYPE] = VERDICT_TYPE.FAULT;
    outbox.words[w + VERDICT.HOOKS] = 0;
    outbox.words[w + VERDICT.VALUE] = 0;
    outbox.words[w + VERDICT.BODY] = 0;
    outbox.close();
  }

  #answer(state: StreamState, call: Call, verdict: Answer, followers = 0): void {
    try {
      this.#tell(state, call, verdict, followers);
    } catch (error) {
      this.#fault(state, call.kind, error, state.filter);
    }
  }

  /**
   * Writes the verdict, edits and bytes. `followers`: the number of followers that let the head pass, with the bit STOPPED if the
   * next one did not, and above bit 16 the hooks that any of them has. Throws if the hook did what it must not do.
   */
  #tell(state: StreamState, call: Call, verdict: Answer, followers: number): void {
    const { kind, chunk } = call;
    const lane = laneOf(kind);
    const isTrailers = kind === KIND.REQUEST_TRAILERS || kind === KIND.RESPONSE_TRAILERS;
    const held = state.body(lane)?.hold;
    if (held !== undefined && chunk !== undefined)
      state.keepBody(lane).heldSize = held.body === "buffer" ? chunk.length : -1;
    let type: number = VERDICT_TYPE.GO_ON;
    let flags = (followers & STOPPED) !== 0 ? VERDICT_FLAG.STOPPED : 0;
    let value = 0;
    let reply: Reply | undefined;
    if (verdict !== undefined) {
      // A filter in plain JavaScript may answer anything.
      if (verdict === null) throw new NoVerdict(verdict, HTTP_VERDICTS);
      switch (verdict.type) {
        case "reply":
          type = VERDICT_TYPE.REPLY;
          value = verdict.status;
          reply = verdict;
          if (verdict.unedited === true) flags |= VERDICT_FLAG.UNEDITED;
          if (verdict.early === true) flags |= VERDICT_FLAG.EARLY;
          if (verdict.flagsLate === true) flags |= VERDICT_FLAG.FLAGS_LATE;
          break;
        case "hold":
          type = verdict.body === "stream" ? VERDICT_TYPE.HOLD_STREAM : VERDICT_TYPE.HOLD_BUFFER;
          value = Math.min(verdict.max, CHUNK_MAX);
          if (verdict.exceptLast) flags |= VERDICT_FLAG.EXCEPT_LAST;
          if (verdict.trailers) flags |= VERDICT_FLAG.TRAILERS;
          break;
        case "last_chunk":
          if (chunk !== undefined) throw new TypeError("lastChunk() is not for body hooks");
          type = VERDICT_TYPE.LAST_CHUNK;
          if (!isTrailers) state.keepBody(lane).heldSize = verdict.bytes.length;
          break;
        case "done":
          type = VERDICT_TYPE.DONE;
          break;
        default:
          throw new NoVerdict(verdict, HTTP_VERDICTS);
      }
    }
    // A body hook may edit the head while it is held; the chain ignores edits of a head that has gone on.
    const own = lane === 0 ? state.request!.head : state.response?.head;
    const head = isTrailers ? state.trailers(lane) : own;
    const heldSize = state.body(lane)?.heldSize ?? -1;
    const { writes } = state.use!;
    const editsSize =
      reply === undefined && head !== undefined
        ? head.measure(isTrailers ? -1 : heldSize, writes)
        : 0;
    if (editsSize > 0) flags |= VERDICT_FLAG.EDITS;
    const waits = isTrailers && held?.trailers === true && reply === undefined;
    const headEditsSize = waits && own !== undefined ? own.measure(heldSize, writes) : 0;
    if (headEditsSize > 0) flags |= VERDICT_FLAG.HEAD_EDITS;
    const facts = state.stream!.changes();
    const factsSize = facts === "" ? 0 : (4 + facts.length + 3) & ~3;
    if (factsSize > 0) flags |= VERDICT_FLAG.FACTS;
    if (!state.told) {
      flags |= VERDICT_FLAG.HOOKS;
      state.told = true;
    }
    if (state.clearRoute) {
      flags |= VERDICT_FLAG.CLEAR_ROUTE;
      state.clearRoute = false;
    }
    let body: Uint8Array | undefined;
    let bodyAt = 0;
    let bodyEnd = 0;
    let replySize = 0;
    if (reply !== undefined) {
      replySize = measureReply(reply);
      body = reply.body instanceof Uint8Array ? reply.body : utf8Encode(String(reply.body));
      bodyEnd = body.length;
      flags |= VERDICT_FLAG.BODY;
    } else if (verdict?.type === "last_chunk") {
      body = verdict.bytes;
      bodyEnd = body.length;
      flags |= VERDICT_FLAG.BODY;
    } else if (
      chunk !== undefined &&
      (chunk.memory !== call.memory || chunk.at !== call.at || chunk.end !== call.end)
    ) {
      body = chunk.memory;
      bodyAt = chunk.at;
      bodyEnd = chunk.end;
      flags |= VERDICT_FLAG.BODY;
    }
    const { outbox } = this.#around;
    const token = state.token | lane;
    if (bodyEnd - bodyAt > CHUNK_MAX)
      throw new RangeError(`a chunk of ${bodyEnd - bodyAt} bytes is too long`);
    while (bodyEnd - bodyAt > PART_SIZE) {
      outbox.send(ANSWER.PART, token, 0, body!, bodyAt, bodyAt + PART_SIZE);
      bodyAt += PART_SIZE;
    }
    const size =
      VERDICT.REST * 4 + factsSize + editsSize + headEditsSize + replySize + (bodyEnd - bodyAt);
    let to = outbox.open(ANSWER.VERDICT, token, 0, size);
    const words = outbox.words;
    const w = to >> 2;
    words[w + VERDICT.TYPE] = type | (flags << 8) | ((followers & 0xff) << 24);
    words[w + VERDICT.HOOKS] = state.hooks | (followers & ~0xffff);
    words[w + VERDICT.VALUE] = value;
    words[w + VERDICT.BODY] = bodyEnd - bodyAt;
    to += VERDICT.REST * 4;
    if (factsSize > 0) {
      words[to >> 2] = facts.length;
      outbox.latin1(facts, to + 4);
      to += factsSize;
    }
    if (editsSize > 0) to = head!.write(outbox, to);
    if (headEditsSize > 0) to = own!.write(outbox, to);
    if (reply !== undefined) {
      writeReply(outbox.words, to, reply, (text, at) => outbox.latin1(text, at));
      to += replySize;
    }
    if (bodyEnd > bodyAt) outbox.bytes.set(body!.subarray(bodyAt, bodyEnd), to);
    outbox.close();
    if (verdict?.type === "hold") {
      head?.settle();
      state.keepBody(lane).hold = verdict;
    } else if (chunk !== undefined && held !== undefined) {
      if (held.trailers) head?.settle();
      else state.keepBody(lane).hold = undefined;
    }
  }
}

/** A bit beside the number of followers that let a head pass: the next one was called too and answers for itself. */
const STOPPED = 1 << 8;
const NO_BYTES = new Uint8Array(0);

/** Reads the strings of a record with RECORD_FLAG.FOLLOWS. */
function readFollow(words: Int32Array, bytes: Uint8Array, w: number, extras: HeadExtras): void {
  const p = w + RECORD.PAYLOAD;
  const factsAt = (p + FOLLOW.STRINGS) * 4 + words[p + FOLLOW.ROUTE_CONFIG]!;
  const end = factsAt + words[p + FOLLOW.FACTS]!;
  const text = (from: number, to: number): string | undefined =>
    to > from ? latin1Decode(bytes, from, to) : undefined;
  extras.routeConfig = text((p + FOLLOW.STRINGS) * 4, factsAt);
  extras.facts = text(factsAt, end);
}

const HOOK_OF_KIND: Readonly<Record<number, string>> = {
  [KIND.REQUEST_HEADERS]: "onRequestHeaders",
  [KIND.REQUEST_BODY]: "onRequestBody",
  [KIND.REQUEST_TRAILERS]: "onRequestTrailers",
  [KIND.RESPONSE_HEADERS]: "onResponseHeaders",
  [KIND.RESPONSE_BODY]: "onResponseBody",
  [KIND.RESPONSE_TRAILERS]: "onResponseTrailers",
};

function laneOf(kind: number): number {
  return kind >= KIND.RESPONSE_HEADERS && kind <= KIND.RESPONSE_TRAILERS ? 1 : 0;
}

function joined(
  parts: readonly Uint8Array[],
  bytes: Uint8Array,
  at: number,
  end: number,
): Uint8Array {
  let size = end - at;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let to = 0;
  for (const part of parts) {
    whole.set(part, to);
    to += part.length;
  }
  whole.set(bytes.subarray(at, end), to);
  return whole;
}

/** Sets `Reply.early` if `result` is a reply. `result`: what a request headers hook returned while a body was still to come. */
function early(result: unknown): unknown {
  return (result as Partial<Reply> | null)?.type === "reply"
    ? { ...(result as Reply), early: true }
    : result;
}
