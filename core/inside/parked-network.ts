// Hot path: every read of a connection with a sandboxed network filter.
import {
  type Chunk,
  type CloseEvent,
  type DownstreamConnection,
  type NetworkChain,
  type NetworkFilter,
  type NetworkFilterFactory,
  type NetworkResult,
  stop,
  utf8Encode,
} from "@tsproxy/sdk";
import { type Parked, type ParkedUse, type ParkTable, recordSize, stubClasses } from "./parked.ts";
import {
  ACTION,
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  CHUNK_MAX,
  HOOK,
  type HookMask,
  KIND,
  NOTICE,
  PART_SIZE,
  RANGE_MAX,
  RECORD,
  RECORD_FLAG,
  STATUS,
  VERDICT,
  VERDICT_FLAG,
  VERDICT_TYPE,
} from "./sandbox/layout.ts";

/**
 * The factory that a chain gets for a dropped-in network package. Each connection gets a stub. Its `onData` and `onWrite` return a
 * promise that settles with the bytes that later filters get in the place of the chunk, or with undefined: they get the chunk.
 */
export function parkedNetworkFactory(parked: ParkedUse, table: ParkTable): NetworkFilterFactory {
  const { box, use, hooks, keepsBodies = false, failsOpen = false } = parked;
  const Stub = stubOf(hooks);
  const shared: Shared = { box, use, hooks, table, keepsBodies, failsOpen };
  return { create: (connection, chain) => new Stub(shared, connection, chain) as NetworkFilter };
}

interface Shared {
  readonly box: number;
  readonly use: number;
  readonly hooks: HookMask;
  readonly table: ParkTable;
  /** The package may neither replace bytes nor write bytes of its own. */
  readonly keepsBodies: boolean;
  /** When a hook throws, the connection goes on without the filter. */
  readonly failsOpen: boolean;
}

/** A record that has not been sent completely. Its bytes are a private copy. */
interface Unsent {
  readonly kind: number;
  readonly flags: number;
  readonly lane: number;
  readonly argument: number;
  readonly bytes: Uint8Array;
  sent: number;
}

/** The hook call under way in one direction: lane 0 for bytes from the client, lane 1 for bytes to it. */
class Lane {
  received: Uint8Array[] = [];
  receivedSize = 0;
  /** Settles the hook's promise. Until then the chain calls no other hook of this lane that has a result. */
  resolve: ((bytes: Uint8Array | typeof stop | undefined) => void) | undefined = undefined;

  settle(bytes: Uint8Array | typeof stop | undefined): void {
    const { resolve } = this;
    this.resolve = undefined;
    resolve?.(bytes);
  }

  /** The bytes of a whole answer: earlier PARTs, then [from, end) of `memory`. */
  take(memory: Uint8Array, from: number, end: number): Uint8Array {
    const bytes = new Uint8Array(this.receivedSize + end - from);
    let to = 0;
    for (const part of this.received) {
      bytes.set(part, to);
      to += part.length;
    }
    bytes.set(memory.subarray(from, end), to);
    return bytes;
  }
}

const UNSENT_MAX = 64;

/** The chain's half of a sandboxed network filter. Its records are sent in order; those without room wait in `#unsent`. */
class ParkedNetworkFilter implements Parked {
  readonly #shared: Shared;
  readonly #connection: DownstreamConnection;
  readonly #chain: NetworkChain;
  readonly #token: number;
  readonly #unsent: Unsent[] = [];
  #waiting = false;
  #over = false;
  #released = false;
  readonly #lanes = [new Lane(), new Lane()] as const;
  /** Hooks that the filter object has; until a verdict tells, those that its source mentions. */
  #hooks: HookMask;
  /** The filter returned `stop` and has not called `resumeReading` yet; `#kept`: its replacement for the chunk. */
  #stopped = false;
  #kept: Uint8Array | undefined = undefined;
  /** The filter called `resumeReading` within the hook that is under way. */
  #resumed = false;

  constructor(shared: Shared, connection: DownstreamConnection, chain: NetworkChain) {
    this.#shared = shared;
    this.#connection = connection;
    this.#chain = chain;
    this.#token = shared.table.acquire(this);
    this.#hooks = shared.hooks;
    const { id, remoteAddress, localAddress, listener, startTime } = connection;
    const { transportProtocol, serverName, applicationProtocols } = connection;
    const facts = utf8Encode(
      JSON.stringify({
        id,
        remoteAddress,
        localAddress,
        listener,
        startTime,
        transportProtocol,
        serverName,
        applicationProtocols,
      }),
    );
    this.#put(KIND.CONNECTION, RECORD_FLAG.CREATE, facts.length, facts);
  }

  hook(
    hook: HookMask,
    kind: number,
    lane: 0 | 1,
    chunk: Chunk | undefined,
    endStream: boolean,
  ): NetworkResult {
    if (this.#over || (this.#hooks & hook) === 0) return undefined;
    if (this.#token === 0) {
      this.#connection.close("abort");
      return undefined;
    }
    const flags = RECORD_FLAG.ANSWER | (endStream ? RECORD_FLAG.END_STREAM : 0);
    return new Promise<Uint8Array | typeof stop | undefined>((resolve) => {
      this.#lanes[lane].resolve = resolve;
      if (chunk === undefined) this.#put(kind, flags, 0, EMPTY);
      else this.#putChunk(kind, flags, lane, chunk);
    }) as Promise<Uint8Array>;
  }

  notice(notice: number): void {
    if (!this.#over) this.#put(KIND.NOTICE, 0, notice, EMPTY);
  }

  close(event: CloseEvent | undefined): void {
    if (this.#over) return;
    if (event !== undefined) {
      const text = utf8Encode(JSON.stringify(event));
      const payload = new Uint8Array(4 + text.length);
      new Int32Array(payload.buffer, 0, 1)[0] = text.length;
      payload.set(text, 4);
      this.#put(KIND.NOTICE, 0, NOTICE.CLOSE, payload);
    }
    this.#over = true;
    for (const lane of this.#lanes) lane.resolve = undefined;
    // Records that wait for room are sent before the end.
    if (this.#unsent.length === 0) this.#release();
  }

  #release(): void {
    if (this.#released || this.#token === 0) return;
    this.#released = true;
    this.#shared.table.release(this.#shared.box, this.#token, undefined);
  }

  #putChunk(kind: number, flags: number, lane: 0 | 1, chunk: Chunk): void {
    const { box, use, table } = this.#shared;
    const { ports } = table;
    const size = chunk.end - chunk.at;
    if (this.#unsent.length === 0 && chunk.memory === ports.memory && size <= RANGE_MAX) {
      const whole = recordSize(0, 0);
      const token = this.#token | lane;
      const w = table.begin(whole, kind, flags, token, use);
      if (w >= 0) {
        ports.words[w + RECORD.RANGE_AT] = chunk.at;
        ports.words[w + RECORD.RANGE_SIZE] = size;
        table.send(box, token, whole);
        return;
      }
    }
    this.#put(kind, flags, 0, chunk.copy(), lane);
  }

  /** Queues and sends private bytes: the range of DATA and WRITE, the payload of other records. */
  #put(kind: number, flags: number, argument: number, bytes: Uint8Array, lane = 0): void {
    // Token 0: too many streams are open; the first hook closes the connection.
    if (this.#token === 0) return;
    const unsent: Unsent = { kind, flags, lane, argument, bytes, sent: 0 };
    if (this.#unsent.length >= UNSENT_MAX || bytes.length > CHUNK_MAX) {
      this.#connection.close("abort");
      return;
    }
    this.#unsent.push(unsent);
    if (this.#unsent.length === 1 && !this.#sendUnsent()) this.#wait();
  }

  #wait(): void {
    if (this.#waiting) return;
    this.#waiting = true;
    this.#shared.table.wait(this);
  }

  retry(): boolean {
    this.#waiting = !this.#sendUnsent();
    return !this.#waiting;
  }

  /** Sends queued records in order, until all are sent or a PART waits for its ACK. False: no room. */
  #sendUnsent(): boolean {
    for (let unsent = this.#unsent[0]; unsent !== undefined; unsent = this.#unsent[0]) {
      if (!this.#sendOne(unsent)) return false;
      if (unsent.sent < unsent.bytes.length) return true;
      this.#unsent.shift();
    }
    if (this.#over) this.#release();
    return true;
  }

  /** Sends the whole record, or its next PART. False: no room. */
  #sendOne(unsent: Unsent): boolean {
    const { box, use, table } = this.#shared;
    const { ports } = table;
    const isData = unsent.kind === KIND.DATA || unsent.kind === KIND.WRITE;
    const token = this.#token | unsent.lane;
    const rest = unsent.bytes.length - unsent.sent;
    const n = Math.min(rest, PART_SIZE);
    const isLast = n === rest;
    const whole = recordSize(isData ? 0 : n, isData ? n : 0);
    const kind = isLast ? unsent.kind : KIND.PART;
    const w = table.begin(whole, kind, isLast ? unsent.flags : RECORD_FLAG.ANSWER, token, use);
    if (w < 0) return false;
    ports.words[w + RECORD.ARGUMENT] = unsent.argument;
    if (isData) ports.words[w + RECORD.RANGE_SIZE] = n;
    const at = isData ? w * 4 + recordSize(0, 0) : (w + RECORD.PAYLOAD) * 4;
    ports.memory.set(unsent.bytes.subarray(unsent.sent, unsent.sent + n), at);
    table.send(box, token, whole);
    unsent.sent += n;
    return true;
  }

  onVerdict(side: number, at: number, size: number, status: number): void {
    const lane = this.#lanes[side as 0 | 1];
    if (status === STATUS.ACK) this.#onAcknowledged();
    else if (this.#over) this.#dropUnsent(status);
    else if (status === STATUS.SKIP) lane.settle(undefined);
    else if ((status === STATUS.AGAIN || status === STATUS.LATE) && this.#shared.failsOpen) {
      // The connection's state in the sandbox is lost, or of no use.
      this.#hooks = 0;
      lane.settle(undefined);
    } else if (status !== 0) this.#fail();
    else this.#onAnswer(lane, at, at + size);
  }

  #onAcknowledged(): void {
    const unsent = this.#unsent[0];
    if (unsent === undefined || unsent.sent === 0) {
      if (!this.#over) this.#malformed("leave to send what it has");
    } else if (!this.#waiting && !this.#sendUnsent()) this.#wait();
  }

  /** The connection has closed and the sandbox failed, so no ACK will come: the queue is dropped. */
  #dropUnsent(status: number): void {
    if (status === 0 || this.#unsent.length === 0) return;
    this.#unsent.length = 0;
    this.#release();
  }

  #onAnswer(lane: Lane, at: number, end: number): void {
    const { words, memory } = this.#shared.table.ports;
    const w = at >> 2;
    const from = at + ANSWER_HEAD_SIZE;
    switch (words[w + ANSWER_HEAD.KIND]) {
      case ANSWER.ACTION:
        this.#act(words[w + ANSWER_HEAD.ARGUMENT]!, from, end);
        break;
      case ANSWER.PART:
        lane.receivedSize += end - from;
        if (lane.receivedSize > CHUNK_MAX) this.#malformed("its answer is too long");
        else lane.received.push(memory.slice(from, end));
        break;
      case ANSWER.VERDICT:
        this.#take(lane, from, end);
        break;
      default:
        this.#malformed(`an answer of kind ${words[w + ANSWER_HEAD.KIND]}`);
    }
  }

  #malformed(reason: string): void {
    this.#shared.table.ports.malformed(this.#shared.box, reason);
    this.#fail();
  }

  #fail(): void {
    this.#connection.close("abort");
  }

  /** Applies a verdict. */
  #take(lane: Lane, at: number, end: number): void {
    const { words, memory } = this.#shared.table.ports;
    const w = at >> 2;
    const from = at + VERDICT.REST * 4;
    if (from > end || words[w + VERDICT.BODY] !== end - from) {
      this.#malformed("a verdict cut short");
      return;
    }
    const type = words[w + VERDICT.TYPE]! & 0xff;
    const flags = words[w + VERDICT.TYPE]! >> 8;
    if ((flags & VERDICT_FLAG.HOOKS) !== 0) this.#hooks &= words[w + VERDICT.HOOKS]!;
    if ((flags & VERDICT_FLAG.BODY) !== 0 && this.#shared.keepsBodies) {
      this.#malformed(KEPT_BODIES);
      return;
    }
    const bytes = (flags & VERDICT_FLAG.BODY) !== 0 ? lane.take(memory, from, end) : undefined;
    lane.received = [];
    lane.receivedSize = 0;
    if (type === VERDICT_TYPE.GO_ON) lane.settle(bytes);
    else if (type === VERDICT_TYPE.FAULT && this.#shared.failsOpen) {
      this.#hooks = 0;
      lane.settle(undefined);
    } else if (type !== VERDICT_TYPE.STOP) this.#fail();
    else if (lane === this.#lanes[1]) lane.settle(stop);
    else if (this.#resumed) {
      // The filter called `resumeReading` before its hook returned `stop`.
      this.#resumed = false;
      lane.settle(bytes);
    } else {
      this.#stopped = true;
      this.#kept = bytes;
    }
  }

  #act(action: number, at: number, end: number): void {
    const connection = this.#connection;
    const { words, memory } = this.#shared.table.ports;
    if (this.#shared.keepsBodies && (action === ACTION.WRITE || action === ACTION.INJECT)) {
      this.#malformed(KEPT_BODIES);
      return;
    }
    switch (action) {
      case ACTION.WRITE:
        connection.write(memory, at, end);
        return;
      case ACTION.END:
        connection.end();
        return;
      case ACTION.CLOSE_FLUSH:
        connection.close("flush");
        return;
      case ACTION.CLOSE_ABORT:
        connection.close("abort");
        return;
      case ACTION.CLOSE_RESET:
        connection.close("reset");
        return;
      case ACTION.CLOSE_DELAYED:
        connection.closeDelayed(
          end - at === 4 ? Math.max(0, Math.min(60_000, words[at >> 2]!)) : 0,
        );
        return;
      case ACTION.PAUSE:
        connection.pause();
        return;
      case ACTION.RESUME:
        connection.resume();
        return;
      case ACTION.RESUME_READING:
        this.#resumeReading();
        return;
      case ACTION.INJECT:
        this.#chain.injectWrite(memory.slice(at, end));
        return;
      case ACTION.INJECT_END:
        this.#chain.injectWrite(EMPTY, true);
        return;
      default:
        this.#malformed(`an action ${action}`);
    }
  }

  #resumeReading(): void {
    const reading = this.#lanes[0];
    if (this.#stopped) {
      this.#stopped = false;
      reading.settle(this.#kept);
      this.#kept = undefined;
    } else if (reading.resolve !== undefined) this.#resumed = true;
    else this.#chain.resumeReading();
  }

  onClose(event: CloseEvent): void {
    this.close(event);
  }
}

const EMPTY = new Uint8Array(0);
const KEPT_BODIES = `bytes of its own, which its manifest does not allow; take "body" out of its "sandbox"`;

type Hooked = ParkedNetworkFilter;
const METHODS: readonly (readonly [bit: number, name: keyof NetworkFilter, method: unknown])[] = [
  [
    HOOK.CONNECT,
    "onConnect",
    function (this: Hooked): NetworkResult {
      return this.hook(HOOK.CONNECT, KIND.CONNECT, 0, undefined, false);
    },
  ],
  [
    HOOK.DATA,
    "onData",
    function (this: Hooked, chunk: Chunk, endStream: boolean): NetworkResult {
      return this.hook(HOOK.DATA, KIND.DATA, 0, chunk, endStream);
    },
  ],
  [
    HOOK.WRITE,
    "onWrite",
    function (this: Hooked, chunk: Chunk, endStream: boolean): NetworkResult {
      return this.hook(HOOK.WRITE, KIND.WRITE, 1, chunk, endStream);
    },
  ],
  [
    HOOK.DRAIN,
    "onDrain",
    function (this: Hooked): void {
      this.notice(NOTICE.DRAIN);
    },
  ],
  [
    HOOK.BLOCKED | HOOK.DRAINED,
    "onBlocked",
    function (this: Hooked): void {
      this.notice(NOTICE.BLOCKED);
    },
  ],
  [
    HOOK.BLOCKED | HOOK.DRAINED,
    "onDrained",
    function (this: Hooked): void {
      this.notice(NOTICE.DRAINED);
    },
  ],
];

const stubOf = stubClasses(ParkedNetworkFilter, METHODS);
