// Hot path: streams that park in a sandbox (test/bench/sandbox.ts).
import {
  type Chunk,
  done,
  type HeaderMap,
  type HookResult,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  hold,
  type LastChunk,
  latin1Decode,
  reply,
  utf8Decode,
  type Verdict,
} from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import type { Gate } from "./gate.ts";
import { ShownHeads } from "./head-guard.ts";
import {
  type AnswerSource,
  type Door,
  type Doors,
  type Parked,
  type ParkedUse,
  type ParkTable,
  recordSize,
  stubClasses,
} from "./parked.ts";
import { answeredBody, answeredLastChunk, replaceBody, sendChunkAt } from "./parked-body.ts";
import { asksForFacts, ParkedFacts } from "./parked-facts.ts";
import { applyEdits, type HeadTexts, parkFollower, parkHead, readReply } from "./parked-head.ts";
import { type HookedHttp, METHODS } from "./parked-http-hooks.ts";
import { Lane } from "./parked-lane.ts";
import {
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  CHUNK_MAX,
  HOOK,
  KIND,
  PART_SIZE,
  RANGE_MAX,
  RECORD,
  RECORD_FLAG,
  STATUS,
  VERDICT,
  VERDICT_FLAG,
  VERDICT_TYPE,
} from "./sandbox/layout.ts";

const ALL_HOOKS = HOOK.END - 1;
const LATE = reply(504, { details: "filter_timeout" });
const FAULT = reply(500, { details: "filter_fault" });
const OVERLOAD = reply(503, { details: "filter_overload" });
const BAD_EDITS = "edits that HTTP cannot carry, or that it must not make";
/** Isolates that a stream may see end before they have begun with its record. */
const TIMES_MAX = 16;

/**
 * The factory that a chain gets for a dropped-in http package. Each stream gets a stub; a hook of the stub returns a promise that
 * settles with the sandbox's verdict. The stub has only those hooks that the package's source mentions.
 */
export function parkedHttpFactory(use: ParkedUse, table: ParkTable): HttpFilterFactory {
  const Stub = stubOf(use.hooks & ALL_HOOKS);
  const doors = table.doorsOf(use.box);
  return (stream) => new Stub(use, table, doors, stream) as HttpFilter;
}

/** The chain's half of a sandboxed filter. */
class ParkedHttpFilter implements Parked, HookedHttp {
  readonly #use: ParkedUse;
  readonly #table: ParkTable;
  readonly #doors: Doors;
  readonly #stream: HttpStream;
  #token = 0;
  /** Set while all of this stream's records have gone by this gate, so that core does not know the stream. */
  #gate: Gate | undefined = undefined;
  /** Hooks that the filter object in the sandbox has; all until the first verdict tells. */
  #hooks = ALL_HOOKS;
  #over = false;
  #request: Lane | undefined = undefined;
  #response: Lane | undefined = undefined;
  #retryLane: Lane | undefined = undefined;
  #facts: ParkedFacts | undefined = undefined;
  /** If the use has a guard. */
  readonly #shown: ShownHeads | undefined;
  /** Facts that found no room; they are sent with the next record. */
  #unsentFacts = "";
  /** Adjacent filters of the chain that live in the same sandbox: a head is sent there once for all of them. */
  #next: ParkedHttpFilter | undefined = undefined;
  #before: ParkedHttpFilter | undefined = undefined;
  /** The sandbox has answered one of its hooks: the filter object there may have state. */
  #isBegun = false;
  /** Number of times that a record had to be sent again. */
  #times = 0;
  /** Flags of all of its records: the part that faults are charged to. */
  #part = 0;
  /** Neighbours that the head under way was also sent for. */
  #followers: ParkedHttpFilter[] = [];
  /** Its filter object is created with the head that it follows now. */
  #isNew = false;
  /** As a follower: the KIND of the head that it has already let pass, or (`#asked`) that it was called with; 0: none. */
  #passed = 0;
  #asked = 0;

  constructor(use: ParkedUse, table: ParkTable, doors: Doors, stream: HttpStream) {
    this.#use = use;
    this.#table = table;
    this.#doors = doors;
    this.#stream = stream;
    this.#shown = use.guard && new ShownHeads(use.guard);
  }

  /** Called once per stream with the filter that is next in the chain; joins the two if both live in the same sandbox. */
  meets(next: HttpFilter): void {
    if (!(next instanceof ParkedHttpFilter) || next.#doors !== this.#doors) return;
    if (!this.#joins || !next.#joins) return;
    this.#next = next;
    next.#before = this;
  }

  /** Whether it can be a neighbour: the parts of the stream that it reads stay the same from its neighbour's turn to its own. */
  get #joins(): boolean {
    const { guard, hooks } = this.#use;
    if (guard !== undefined || (hooks & CHANGING) !== 0) return false;
    return (hooks & HOOK.ROUTE_CONFIG) === 0 || this.#stream.isOverridden === false;
  }

  head(kind: number, bit: number, map: HeaderMap, endStream: boolean): HookResult {
    if (this.#passed === kind) {
      this.#passed = 0;
      return undefined;
    }
    if (this.#asked === kind) {
      this.#asked = 0;
      return this.#lane(kind) as PromiseLike<Verdict>;
    }
    return this.#park(kind, bit, map, undefined, endStream);
  }

  /** Adds a follower record for each neighbour that has this hook, behind the head that was just sent to the gate. */
  #sendFollowers(gate: Gate, lane: Lane): void {
    const isRequest = lane.kind === KIND.REQUEST_HEADERS;
    if (!isRequest && lane.kind !== KIND.RESPONSE_HEADERS) return;
    const bit = isRequest ? HOOK.REQUEST_HEADERS : HOOK.RESPONSE_HEADERS;
    for (
      let filter = isRequest ? this.#next : this.#before;
      filter !== undefined;
      filter = isRequest ? filter.#next : filter.#before
    ) {
      if ((filter.#hooks & filter.#use.hooks & bit) === 0) continue;
      if (!filter.#follow(gate, lane)) return;
      this.#followers.push(filter);
    }
  }

  #follow(gate: Gate, { kind, endStream }: Lane): boolean {
    const { use, box } = this.#use;
    const own = kind === KIND.REQUEST_HEADERS ? this.#request : this.#response;
    if (this.#over || own?.busy === true) return false;
    this.#isNew = this.#token === 0;
    if (this.#isNew ? this.#isConfined : this.#gate !== gate) return false;
    if (this.#isNew) this.#token = this.#table.acquire(this);
    if (this.#token === 0) return false;
    const texts = this.#isNew ? this.#texts() : undefined;
    const facts = texts?.facts ?? this.#newFacts(true);
    const flags =
      this.#part |
      RECORD_FLAG.FOLLOWS |
      (this.#isNew ? RECORD_FLAG.CREATE : 0) |
      (endStream ? RECORD_FLAG.END_STREAM : 0);
    const token = this.#token | (kind === KIND.REQUEST_HEADERS ? 0 : 1);
    if (parkFollower(gate, kind, flags, token, use, texts?.routeConfig ?? "", facts)) {
      this.#unsentFacts = "";
      if (this.#isNew) this.#gate = gate;
      return true;
    }
    if (this.#isNew) {
      this.#table.release(box, this.#token, gate);
      this.#token = 0;
    }
    return false;
  }

  /** The first `passed` followers let the head pass, and have none but these hooks. If `isStopped`, the next one was called too and sends its own verdict. */
  #endFollowing(lane: Lane, passed: number, isStopped: boolean, hooks = ALL_HOOKS): void {
    const followers = this.#followers;
    for (let k = 0; k < followers.length; k++) {
      const filter = followers[k]!;
      if (k < passed) {
        filter.#isBegun = true;
        filter.#passed = lane.kind;
        filter.#hooks &= hooks;
      } else if (k === passed && isStopped && filter.#gate !== undefined)
        filter.#beginAsked(lane, filter.#gate);
      else if (filter.#isNew) {
        this.#table.release(filter.#use.box, filter.#token, filter.#gate);
        filter.#token = 0;
        filter.#gate = undefined;
      }
    }
    while (followers.length > 0) followers.pop();
  }

  #beginAsked({ kind, map, endStream }: Lane, gate: Gate): void {
    const lane = this.#lane(kind);
    lane.begin(kind, map, undefined, endStream);
    // Its hook was called in the entry that has just ended.
    lane.gate = gate;
    lane.entry = gate.next - 1;
    this.#asked = kind;
    gate.alsoAsked(this.#token | (lane === this.#response ? 1 : 0));
  }

  body(kind: number, bit: number, chunk: Chunk, endStream: boolean): HookResult {
    return this.#park(kind, bit, undefined, chunk, endStream);
  }

  #park(
    kind: number,
    bit: number,
    map: HeaderMap | undefined,
    chunk: Chunk | undefined,
    endStream: boolean,
  ): HookResult {
    if (this.#over || (this.#hooks & bit) === 0) return undefined;
    if (this.#token === 0 && this.#isDisabled) {
      this.#hooks = 0;
      return undefined;
    }
    const lane = this.#lane(kind);
    lane.begin(kind, map, chunk, endStream);
    if (!this.#send(lane)) {
      // Bytes in the worker's memory are lent for this event only.
      map?.detach();
      if (chunk !== undefined && chunk.memory === this.#table.ports.memory)
        chunk.replace(chunk.copy());
      this.#wait(lane);
    }
    // A LastChunk comes from trailers hooks and head-only messages; their caller checks for it.
    return lane as PromiseLike<Verdict>;
  }

  /** Whether the route's config disables this filter. Read when the stream reaches it: earlier filters may change the route. */
  get #isDisabled(): boolean {
    const { disabledBy } = this.#use;
    if (disabledBy === undefined || this.#stream.isOverridden === false) return false;
    const config = this.#stream.routeConfig as Readonly<Record<string, unknown>> | undefined;
    return config?.[disabledBy] === true;
  }

  #lane(kind: number): Lane {
    if (kind < KIND.RESPONSE_HEADERS) return (this.#request ??= new Lane());
    return (this.#response ??= new Lane());
  }

  #wait(lane: Lane): void {
    if (this.#retryLane !== undefined && this.#retryLane !== lane) {
      // Both directions wait for room at once: rare, so the second one fails instead of being queued.
      lane.settle(OVERLOAD);
      return;
    }
    this.#retryLane = lane;
    this.#table.wait(this);
  }

  retry(): boolean {
    const lane = this.#retryLane;
    if (lane === undefined) return true;
    if (!lane.busy || this.#send(lane)) {
      this.#retryLane = undefined;
      return true;
    }
    return false;
  }

  /** Sends the lane's record. False: no room now. A record that can never be sent settles its lane with an error reply. */
  #send(lane: Lane): boolean {
    const { use } = this.#use;
    if (this.#gate?.isGone === true && !this.#begin(lane)) return true;
    const token = this.#token | (lane === this.#response ? 1 : 0);
    if (lane.kind === KIND.REQUEST_HEADERS) return this.#create(lane);
    if (this.#token === 0) {
      if (!this.#create(undefined)) return false;
      if (this.#token === 0) {
        lane.settle(OVERLOAD);
        return true;
      }
      return this.#send(lane);
    }
    if (lane.chunk !== undefined) {
      if (this.#facts !== undefined && lane.sent === 0) this.#tellFacts(lane.endStream);
      return this.#sendBody(lane, token);
    }
    const flags = this.#part | RECORD_FLAG.ANSWER | (lane.endStream ? RECORD_FLAG.END_STREAM : 0);
    const facts = this.#newFacts(true);
    const texts = facts === "" ? undefined : { routeConfig: "", facts };
    const map = this.#show(lane.map!);
    let sent: "sent" | "full" | "large" = "full";
    const gate = this.#gate?.isOpen === true ? this.#gate : undefined;
    if (gate !== undefined) {
      sent = parkHead(gate, lane.kind, flags, token, use, map, texts);
      if (sent === "sent") {
        lane.waitAt(gate);
        this.#sendFollowers(gate, lane);
      }
    }
    if (sent === "full") {
      sent = parkHead(this.#core, lane.kind, flags | this.#adopts, token, use, map, texts);
      if (sent === "sent") this.#gate = undefined;
    }
    if (sent !== "full") this.#unsentFacts = "";
    if (sent === "large") lane.settle(FAULT);
    return sent !== "full";
  }

  get #core(): Door {
    return this.#doors.core;
  }

  /** The flag that introduces the stream to core, if its records have only gone by the gate so far. */
  get #adopts(): number {
    return this.#gate === undefined ? 0 : RECORD_FLAG.ADOPT;
  }

  /**
   * The isolate that the stream was in has ended: it begins anew in the next one. False: it cannot, because state is lost that it
   * needs, and the failure policy has settled its lanes.
   */
  #begin(lane: Lane): boolean {
    const other = lane === this.#request ? this.#response : this.#request;
    const holds = lane.held || other?.held === true;
    if (other?.busy === true || (this.#isBegun && (holds || this.#use.stateless !== true))) {
      this.#hooks = 0;
      this.#byPolicy(lane);
      if (other?.busy === true) this.#byPolicy(other);
      return false;
    }
    if (this.#token !== 0) this.#table.release(this.#use.box, this.#token, this.#gate);
    this.#token = 0;
    this.#gate = this.#facts = undefined;
    this.#isBegun = false;
    this.#unsentFacts = "";
    lane.again();
    return true;
  }

  #byPolicy(lane: Lane): void {
    lane.settle(this.#use.failsOpen === true ? undefined : FAULT);
  }

  /** The isolate has ended before it has begun with the lane's record: it is sent to the next one. */
  #sendAgain(lane: Lane): void {
    if (++this.#times > TIMES_MAX) {
      this.#byPolicy(lane);
      return;
    }
    if (!this.#begin(lane)) return;
    if (!this.#send(lane)) this.#wait(lane);
    // What the chain has lent it until now it keeps from here on.
    if (lane.busy && lane.gate === undefined) lane.leaveGate();
  }

  get #isConfined(): boolean {
    const { confined } = this.#use;
    return confined !== undefined && confined.size > 0 && confined.has(this.#part);
  }

  /** Sends what the filter object is created from: with the first hook if that is `onRequestHeaders`, else as a CREATE record. */
  #create(lane: Lane | undefined): boolean {
    const { box, use } = this.#use;
    const table = this.#table;
    const token = this.#token === 0 ? table.acquire(this) : this.#token;
    if (token === 0) {
      lane?.settle(OVERLOAD);
      return true;
    }
    const texts = this.#texts();
    let flags: number = this.#part | RECORD_FLAG.CREATE;
    if (lane !== undefined)
      flags |= RECORD_FLAG.ANSWER | (lane.endStream ? RECORD_FLAG.END_STREAM : 0);
    const kind = lane === undefined ? KIND.CREATE : KIND.REQUEST_HEADERS;
    const map = this.#show(lane?.map ?? this.#stream.request);
    let sent: "sent" | "full" | "large" = "full";
    const gate = this.#isConfined ? undefined : this.#doors.open;
    if (gate !== undefined) {
      sent = parkHead(gate, kind, flags, token, use, map, texts);
      if (sent === "sent") {
        this.#gate = gate;
        this.#token = token;
        if (lane !== undefined) {
          lane.waitAt(gate);
          this.#sendFollowers(gate, lane);
        }
      }
    }
    if (sent === "full") sent = parkHead(this.#core, kind, flags, token, use, map, texts);
    if (sent !== "sent") table.release(box, token, undefined);
    else this.#token = token;
    if (sent === "large") lane?.settle(FAULT);
    return sent !== "full";
  }

  #texts(): HeadTexts | undefined {
    let { hooks } = this.#use;
    if (hooks < HOOK.INFO) return undefined;
    const configs = (hooks & HOOK.ROUTE_CONFIG) !== 0 ? this.#stream.routeConfigs : NONE;
    if (configs.length > 0) {
      hooks = this.#use.named ?? hooks;
      this.#part = this.#use.parts?.flags(configs) ?? 0;
    }
    if (asksForFacts(hooks)) this.#facts = new ParkedFacts(this.#stream, hooks);
    return {
      routeConfig: configs.length === 0 ? "" : configText(configs),
      facts: this.#facts === undefined ? "" : this.#facts.text(true),
    };
  }

  #sendBody(lane: Lane, token: number): boolean {
    const { use } = this.#use;
    const chunk = lane.chunk!;
    const size = chunk.end - chunk.at;
    if (size > CHUNK_MAX) {
      lane.settle(FAULT);
      return true;
    }
    const gate = this.#gate;
    if (gate?.isOpen === true && sendChunkAt(gate, lane, this.#part, token, use)) return true;
    const lent = chunk.memory === this.#core.lends;
    const inOne = lent ? size <= RANGE_MAX : size <= PART_SIZE;
    if (!inOne && lane.sending === undefined)
      lane.sending = lent ? chunk.copy() : chunk.memory.subarray(chunk.at, chunk.end);
    const memory = lane.sending ?? chunk.memory;
    const at = lane.sending === undefined ? chunk.at : lane.sent;
    const rest = lane.sending === undefined ? size : size - lane.sent;
    const last = lane.sending === undefined || rest <= PART_SIZE;
    const n = last ? rest : PART_SIZE;
    const inPlace = lent && lane.sending === undefined;
    const whole = recordSize(0, inPlace ? 0 : n);
    let flags: number = this.#part | RECORD_FLAG.ANSWER;
    if (last && lane.endStream) flags |= RECORD_FLAG.END_STREAM;
    const door = this.#core;
    const kind = last ? lane.kind : KIND.PART;
    const w = door.begin(whole, kind, flags | this.#adopts, token, use);
    if (w < 0) return false;
    this.#gate = undefined;
    door.words[w + RECORD.RANGE_SIZE] = n;
    if (inPlace) door.words[w + RECORD.RANGE_AT] = at;
    else if (n > 0) door.memory.set(memory.subarray(at, at + n), w * 4 + recordSize(0, 0));
    door.send(token, whole);
    lane.sent += n;
    return true;
  }

  gateOf(laneBit: number): Gate | undefined {
    return (laneBit === 0 ? this.#request : this.#response)?.gate;
  }

  entryOf(laneBit: number): number {
    return (laneBit === 0 ? this.#request : this.#response)?.entry ?? 0;
  }

  onLate(laneBit: number): void {
    this.#gate = undefined;
    const lane = laneBit === 0 ? this.#request : this.#response;
    if (lane === undefined) return;
    if (this.#followers.length > 0) this.#endFollowing(lane, 0, false);
    lane.leaveGate();
  }

  onVerdict(laneBit: number, at: number, size: number, status: number, source: AnswerSource): void {
    const lane = laneBit === 0 ? this.#request : this.#response;
    if (lane === undefined || !lane.busy) return;
    if (status !== 0) {
      if (this.#followers.length > 0) this.#endFollowing(lane, 0, false);
      if (status === STATUS.ACK) this.#sendNext(lane);
      else if (status === STATUS.AGAIN) this.#sendAgain(lane);
      else if (status === STATUS.GONE || (status === STATUS.LATE && this.#use.failsOpen === true)) {
        this.#hooks = 0;
        this.#byPolicy(lane);
      } else
        lane.settle(
          status === STATUS.SKIP
            ? undefined
            : status === STATUS.LATE
              ? LATE
              : status === STATUS.OVERLOAD
                ? OVERLOAD
                : FAULT,
        );
      return;
    }
    const { words, memory } = source;
    const kind = words[(at >> 2) + ANSWER_HEAD.KIND];
    const from = at + ANSWER_HEAD_SIZE;
    const end = at + size;
    if (kind === ANSWER.PART) {
      lane.receivedSize += end - from;
      if (lane.receivedSize > CHUNK_MAX) this.#malformed(lane, "its answer is too long");
      else (lane.received ??= []).push(memory.slice(from, end));
    } else if (kind === ANSWER.VERDICT) {
      const verdict = this.#verdictOf(lane, from, end, source);
      if (typeof verdict === "string") this.#malformed(lane, verdict);
      else lane.settle(verdict);
    } else this.#malformed(lane, `an answer of kind ${kind}`);
  }

  #sendNext(lane: Lane): void {
    if (lane.sending === undefined || lane.sent === 0 || lane.sent >= lane.sending.length) {
      this.#malformed(lane, "leave to send what it has");
    } else if (!this.#send(lane)) this.#wait(lane);
  }

  #malformed(lane: Lane, reason: string): void {
    this.#endFollowing(lane, 0, false);
    this.#table.ports.malformed(this.#use.box, reason);
    lane.settle(FAULT);
  }

  /** Applies an answer's edits and bytes, and answers the verdict for the chain; a string says why the answer is malformed. */
  #verdictOf(
    lane: Lane,
    at: number,
    end: number,
    source: AnswerSource,
  ): Verdict | LastChunk | string {
    const { words, memory } = source;
    const w = at >> 2;
    const head = words[w + VERDICT.TYPE]!;
    const type = head & 0xff;
    const flags = (head >> 8) & 0xffff;
    if (this.#followers.length > 0) {
      const passed = type === VERDICT_TYPE.GO_ON ? head >>> 24 : 0;
      const hooks = words[w + VERDICT.HOOKS]! >>> 16;
      this.#endFollowing(lane, passed, (flags & VERDICT_FLAG.STOPPED) !== 0, hooks);
    }
    const value = words[w + VERDICT.VALUE]!;
    const bodySize = words[w + VERDICT.BODY]!;
    let from = at + VERDICT.REST * 4;
    if (from > end || bodySize < 0 || bodySize > end - from) return "a verdict cut short";
    this.#isBegun = true;
    if ((flags & VERDICT_FLAG.HOOKS) !== 0) this.#hooks = words[w + VERDICT.HOOKS]! & ALL_HOOKS;
    if (type === VERDICT_TYPE.FAULT) {
      if (this.#use.failsOpen !== true) return FAULT;
      this.#hooks = 0;
      return undefined;
    }
    const bodyAt = end - bodySize;
    if ((flags & VERDICT_FLAG.FACTS) !== 0) {
      const textEnd = from + 4 + words[from >> 2]!;
      if (textEnd < from || textEnd > bodyAt) return "facts out of place";
      this.#facts ??= new ParkedFacts(this.#stream, this.#use.hooks);
      if (!this.#facts.apply(latin1Decode(memory, from + 4, textEnd)))
        return "facts that nobody can set";
      from = (textEnd + 3) & ~3;
    }
    if (type === VERDICT_TYPE.REPLY) {
      const bytes = answeredBody(lane, memory, bodyAt, end);
      const text = utf8Decode(bytes, 0, bytes.length);
      // The filter can only have given this body as bytes if it is not UTF-8; then it stays bytes.
      const body = text.includes("\ufffd") ? bytes.slice() : text;
      const answer = readReply(value, body, words, memory, from, bodyAt);
      if (answer === undefined) return "a reply that HTTP cannot carry";
      const unedited = (flags & VERDICT_FLAG.UNEDITED) !== 0;
      const early = (flags & VERDICT_FLAG.EARLY) !== 0;
      const flagsLate = (flags & VERDICT_FLAG.FLAGS_LATE) !== 0;
      if (!unedited && !early && !flagsLate) return answer;
      return {
        ...answer,
        ...(unedited && { unedited }),
        ...(early && { early }),
        ...(flagsLate && { flagsLate }),
      };
    }
    const isBody = lane.chunk !== undefined;
    // A body hook may edit its head only while the head is held; otherwise the head has gone on.
    const map = isBody ? (lane.held ? this.#headOf(lane) : undefined) : lane.map;
    if (isBody && lane.held && lane.holdsBody) {
      const isReplaced = (flags & VERDICT_FLAG.BODY) !== 0;
      lane.bodySize = isReplaced ? lane.receivedSize + bodySize : lane.chunk!.length;
    }
    if ((flags & VERDICT_FLAG.EDITS) !== 0 && map !== undefined) {
      const isLast = type === VERDICT_TYPE.LAST_CHUNK && !lane.isTrailers && lane.endStream;
      const isEmpty = lane.endStream && !lane.isTrailers;
      const length = isLast
        ? lane.receivedSize + bodySize
        : isBody
          ? lane.bodySize
          : isEmpty
            ? 0
            : -1;
      from = this.#applyEdits(map, from, bodyAt, length, source);
      if (from < 0) return BAD_EDITS;
    }
    if ((flags & VERDICT_FLAG.HEAD_EDITS) !== 0 && lane.isTrailers && lane.held) {
      const own = this.#headOf(lane);
      if (own !== undefined) from = this.#applyEdits(own, from, bodyAt, lane.bodySize, source);
      if (from < 0) return BAD_EDITS;
    }
    if ((flags & VERDICT_FLAG.CLEAR_ROUTE) !== 0) this.#stream.clearRoute();
    if (isBody) {
      if ((flags & VERDICT_FLAG.BODY) !== 0 && this.#use.keepsBodies === true) return KEPT_BODIES;
      if ((flags & VERDICT_FLAG.BODY) !== 0) {
        const body = answeredBody(lane, memory, bodyAt, end);
        if (!replaceBody(lane, this.#headOf(lane), body))
          return "another length for a body whose content-length has gone out; remove it in the headers hook";
      }
      lane.held = lane.holdsTrailers && !lane.endStream;
    }
    switch (type) {
      case VERDICT_TYPE.GO_ON:
        return undefined;
      case VERDICT_TYPE.DONE:
        this.#hooks = 0;
        return done;
      case VERDICT_TYPE.HOLD_BUFFER:
      case VERDICT_TYPE.HOLD_STREAM:
        if (isBody || value < 0 || value > CHUNK_MAX) return "a hold out of place";
        lane.held = true;
        lane.holdsBody = type === VERDICT_TYPE.HOLD_BUFFER;
        lane.holdsTrailers = lane.holdsBody && (flags & VERDICT_FLAG.TRAILERS) !== 0;
        return hold({
          body: lane.holdsBody ? "buffer" : "stream",
          max: value,
          exceptLast: (flags & VERDICT_FLAG.EXCEPT_LAST) !== 0,
          trailers: lane.holdsTrailers,
        });
      case VERDICT_TYPE.LAST_CHUNK:
        if (this.#use.keepsBodies === true) return KEPT_BODIES;
        return answeredLastChunk(lane, this.#headOf(lane), answeredBody(lane, memory, bodyAt, end));
      default:
        return `a verdict of type ${type}`;
    }
  }

  /** The offset behind the edits, or -1 if they are malformed or not allowed. */
  #applyEdits(
    map: HeaderMap,
    from: number,
    end: number,
    length: number,
    { words, memory }: AnswerSource,
  ): number {
    if (this.#shown === undefined) return applyEdits(map, words, memory, from, end, length);
    return this.#shown.edit(map, (shown) => applyEdits(shown, words, memory, from, end, length));
  }

  /** The head that the sandbox may see: `map`, or what the guard shows of it. */
  #show(map: HeaderMap): HeaderMap {
    return this.#shown?.show(map) ?? map;
  }

  #headOf(lane: Lane): HeaderMap | undefined {
    return lane === this.#request ? this.#stream.request : this.#stream.response;
  }

  /** Changed facts, as JSON in ASCII; "": none. They are kept until they are sent. `info`: with StreamInfo (counts and times). */
  #newFacts(info: boolean): string {
    if (this.#facts === undefined) return "";
    if (this.#unsentFacts === "") this.#unsentFacts = this.#facts.text(info);
    return this.#unsentFacts;
  }

  /** Sends changed facts alone. If there is no room, the filter goes on with the facts that it has. */
  #tellFacts(info: boolean): void {
    const text = this.#newFacts(info);
    if (text === "") return;
    const whole = recordSize(text.length, 0);
    const gate = this.#gate?.isOpen === true ? this.#gate : undefined;
    const door = gate ?? this.#core;
    const flags = this.#part | (gate === undefined ? this.#adopts : 0);
    const w = door.begin(whole, KIND.FACTS, flags, this.#token, this.#use.use);
    if (w < 0) return;
    this.#gate = gate;
    this.#unsentFacts = "";
    const { words, memory } = door;
    words[w + RECORD.ARGUMENT] = text.length;
    const at = (w + RECORD.PAYLOAD) * 4;
    for (let k = 0; k < text.length; k++) memory[at + k] = text.charCodeAt(k);
    door.send(this.#token, whole);
  }

  onEnd(): void {
    if (this.#over) return;
    // A filter whose only hook is `onEnd` has not been created yet; it is created now, to be told of the end.
    if (this.#token === 0 && (this.#use.hooks & ALL_HOOKS) === 0 && !this.#isDisabled)
      this.#create(undefined);
    this.#over = true;
    if (this.#token !== 0) {
      if ((this.#use.hooks & HOOK.END) !== 0) this.#tellFacts(true);
      this.#table.release(this.#use.box, this.#token, this.#gate);
      this.#token = 0;
    }
    this.#request?.drop();
    this.#response?.drop();
  }
}

/** Parts of a stream that an earlier filter may change for later ones, directly or by changing the route. */
const CHANGING = HOOK.METADATA | HOOK.FILTER_STATE | HOOK.CONNECTION_STATE | HOOK.ROUTE | HOOK.INFO;

const KEPT_BODIES = `another body, which its manifest does not allow; take "body" out of its "sandbox"`;
const NONE: readonly unknown[] = [];
const configTexts = new WeakMap<readonly unknown[], string>();

/** JSON of the per-route configs, cached by the array, which all streams of a route share. */
function configText(configs: readonly unknown[]): string {
  let text = configTexts.get(configs);
  if (text === undefined) {
    text = ascii(JSON.stringify(configs));
    configTexts.set(configs, text);
  }
  return text;
}

const stubOf = stubClasses(ParkedHttpFilter, METHODS);
