// Hot path: every read of a connection with a sandboxed network filter.
import {
  type Address,
  assertNetworkVerdict,
  Chunk,
  type CloseEvent,
  type DownstreamConnection,
  type NetworkChain,
  type NetworkFilter,
  type NetworkFilterFactory,
  type NetworkResult,
  NoVerdict,
  type Output,
  stop,
  utf8Decode,
} from "@tsproxy/sdk";
import type { SandboxContext } from "./context.ts";
import {
  ACTION,
  ANSWER,
  CHUNK_MAX,
  HOOK_NAMES,
  KIND,
  NOTICE,
  PART_SIZE,
  RECORD,
  RECORD_FLAG,
  VERDICT,
  VERDICT_FLAG,
  VERDICT_TYPE,
} from "./layout.ts";
import type { Surroundings } from "./surroundings.ts";

/** The drain that sandboxed filters are told of: each connection closes at once. */
const AT_ONCE = { immediate: true, closes: () => true } as const;

/** One use of a network package. */
interface NetworkUse {
  readonly id: number;
  readonly factory: NetworkFilterFactory;
  readonly cx: SandboxContext;
}

/** The JSON of a CONNECTION record. */
export interface ConnectionFacts {
  readonly id: number;
  readonly remoteAddress: Address;
  readonly localAddress: Address;
  readonly listener: DownstreamConnection["listener"];
  readonly startTime: number;
  readonly transportProtocol: string;
  readonly serverName: string;
  readonly applicationProtocols: readonly string[];
}

/** One filter object and its connection. */
export interface ConnectionState {
  token: number;
  readonly filter: NetworkFilter;
  readonly connection: SandboxConnection;
  readonly parts: Uint8Array[];
  /** The filter's hooks, sent with the first verdict; 0 from then on. */
  hooks: number;
}

/** The connections that pass through this sandbox. */
export class ConnectionTable {
  readonly #around: Surroundings;
  readonly #uses = new Map<number, NetworkUse>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  addUse(use: NetworkUse): void {
    this.#uses.set(use.id, use);
  }

  removeUse(id: number): void {
    this.#uses.delete(id);
  }

  create(
    token: number,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
  ): ConnectionState | undefined {
    const use = this.#uses.get(words[w + RECORD.USE]!);
    if (use === undefined) return undefined;
    const at = (w + RECORD.PAYLOAD) * 4;
    const facts = JSON.parse(
      utf8Decode(bytes, at, at + words[w + RECORD.ARGUMENT]!),
    ) as ConnectionFacts;
    const connection = new SandboxConnection(this.#around, token, facts);
    const filter = use.factory.create(connection, connection.chain);
    connection.again = () => this.#around.clock.soon(() => connection.open && filter.onAgain?.());
    let hooks = 0;
    for (const [name, bit] of HOOK_NAMES) if (name in filter) hooks |= bit;
    return { token, filter, connection, parts: [], hooks };
  }

  end(state: ConnectionState): void {
    state.token = 0;
    state.connection.open = false;
  }

  part(state: ConnectionState, lane: number, bytes: Uint8Array, at: number, end: number): void {
    let size = end - at;
    for (const part of state.parts) size += part.length;
    if (size <= CHUNK_MAX) state.parts.push(bytes.slice(at, end));
    this.#around.outbox.open(ANSWER.ACK, state.token | lane, 0, 0);
    this.#around.outbox.close();
  }

  run(
    state: ConnectionState,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
    at: number,
    end: number,
  ): void {
    const kind = words[w]! & 0xff;
    const { filter, connection } = state;
    switch (kind) {
      case KIND.CONNECT:
        this.#hook(state, "onConnect", 0, undefined, () => filter.onConnect?.());
        return;
      case KIND.DATA: {
        const chunk = wholeChunk(state, bytes, at, end);
        connection.bytesReceived += chunk.length;
        const endStream = ((words[w]! >> 8) & RECORD_FLAG.END_STREAM) !== 0;
        this.#hook(state, "onData", 0, chunk, () => filter.onData?.(chunk, endStream));
        return;
      }
      case KIND.WRITE: {
        const chunk = wholeChunk(state, bytes, at, end);
        const endStream = ((words[w]! >> 8) & RECORD_FLAG.END_STREAM) !== 0;
        this.#hook(state, "onWrite", 1, chunk, () => filter.onWrite?.(chunk, endStream));
        return;
      }
      default:
        this.#notice(state, words, bytes, w);
    }
  }

  #notice(state: ConnectionState, words: Int32Array, bytes: Uint8Array, w: number): void {
    const { filter, connection, token } = state;
    switch (words[w + RECORD.ARGUMENT]) {
      case NOTICE.DRAIN:
        connection.draining = true;
        this.#notify(token, "onDrain", () => filter.onDrain?.(AT_ONCE));
        return;
      case NOTICE.BLOCKED:
        connection.blocked = true;
        this.#notify(token, "onBlocked", () => filter.onBlocked?.());
        return;
      case NOTICE.DRAINED:
        connection.blocked = false;
        this.#notify(token, "onDrained", () => filter.onDrained?.());
        return;
      case NOTICE.CLOSE: {
        connection.open = false;
        const at = (w + RECORD.PAYLOAD + 1) * 4;
        const text = utf8Decode(bytes, at, at + words[w + RECORD.PAYLOAD]!);
        this.#notify(token, "onClose", () => filter.onClose?.(JSON.parse(text) as CloseEvent));
      }
    }
  }

  #notify(token: number, hook: string, call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#around.thrown(token, hook, error);
    }
  }

  #hook(
    state: ConnectionState,
    hook: string,
    lane: number,
    chunk: Chunk | undefined,
    call: () => NetworkResult,
  ): void {
    const base = state.token;
    const token = base | lane;
    const given =
      chunk === undefined ? undefined : { memory: chunk.memory, at: chunk.at, end: chunk.end };
    const replaced = (): boolean =>
      chunk !== undefined &&
      (chunk.memory !== given!.memory || chunk.at !== given!.at || chunk.end !== given!.end);
    const fail = (error: unknown): void => {
      const returned = error instanceof NoVerdict ? state.filter : undefined;
      this.#around.thrown(token, hook, error, returned);
      this.#answer(state, token, VERDICT_TYPE.FAULT, undefined);
    };
    let result: NetworkResult;
    try {
      result = call();
      assertNetworkVerdict(result, false);
    } catch (error) {
      fail(error);
      return;
    }
    if (result === undefined || result === stop) {
      const type = result === stop ? VERDICT_TYPE.STOP : VERDICT_TYPE.GO_ON;
      this.#answer(state, token, type, replaced() ? chunk : undefined);
      return;
    }
    if (chunk !== undefined && chunk.memory === this.#around.bytes) {
      // The block's bytes are valid for this entry only; the filter goes on with a copy.
      const touched = replaced();
      chunk.replace(chunk.copy());
      if (!touched) Object.assign(given!, { memory: chunk.memory, at: 0, end: chunk.end });
    }
    (result as PromiseLike<undefined | Uint8Array | typeof stop>).then(
      (bytes) => {
        if (state.token !== base) return;
        try {
          assertNetworkVerdict(bytes, true);
        } catch (error) {
          fail(error);
          return;
        }
        const type = bytes === stop ? VERDICT_TYPE.STOP : VERDICT_TYPE.GO_ON;
        if (bytes instanceof Uint8Array)
          this.#answer(state, token, type, new Chunk(bytes, 0, bytes.length));
        else this.#answer(state, token, type, replaced() ? chunk : undefined);
      },
      (error) => {
        if (state.token === base) fail(error);
      },
    );
  }

  #answer(state: ConnectionState, token: number, type: number, body: Chunk | undefined): void {
    const { outbox } = this.#around;
    let at = body?.at ?? 0;
    const end = body?.end ?? 0;
    for (; end - at > PART_SIZE; at += PART_SIZE)
      outbox.send(ANSWER.PART, token, 0, body!.memory, at, at + PART_SIZE);
    const to = outbox.open(ANSWER.VERDICT, token, 0, VERDICT.REST * 4 + (end - at));
    const w = to >> 2;
    const flags =
      (body === undefined ? 0 : VERDICT_FLAG.BODY) | (state.hooks === 0 ? 0 : VERDICT_FLAG.HOOKS);
    outbox.words[w + VERDICT.TYPE] = type | (flags << 8);
    outbox.words[w + VERDICT.HOOKS] = state.hooks;
    state.hooks = 0;
    outbox.words[w + VERDICT.VALUE] = 0;
    outbox.words[w + VERDICT.BODY] = end - at;
    if (end > at) outbox.bytes.set(body!.memory.subarray(at, end), to + VERDICT.REST * 4);
    outbox.close();
  }
}

/** The chunk of a record, behind its earlier PARTs. */
function wholeChunk(state: ConnectionState, bytes: Uint8Array, at: number, end: number): Chunk {
  if (state.parts.length === 0) return new Chunk(bytes, at, end);
  state.parts.push(bytes.slice(at, end));
  const whole = concat(state.parts);
  state.parts.length = 0;
  return new Chunk(whole, 0, whole.length);
}

function concat(parts: readonly Uint8Array[]): Uint8Array {
  let size = 0;
  for (const part of parts) size += part.length;
  const whole = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

/** A connection as a sandboxed network filter sees it. Calls go to the chain as ACTION answers. */
class SandboxConnection implements DownstreamConnection {
  readonly id: number;
  readonly remoteAddress: Address;
  readonly localAddress: Address;
  readonly listener: DownstreamConnection["listener"];
  readonly startTime: number;
  readonly transportProtocol: string;
  readonly serverName: string;
  readonly applicationProtocols: readonly string[];
  readonly chain: NetworkChain;
  draining = false;
  open = true;
  blocked = false;
  ended = false;
  bytesReceived = 0;
  bytesSent = 0;
  readonly #around: Surroundings;
  readonly #token: number;

  constructor(around: Surroundings, token: number, facts: ConnectionFacts) {
    this.#around = around;
    this.#token = token;
    this.id = facts.id;
    this.remoteAddress = facts.remoteAddress;
    this.localAddress = facts.localAddress;
    this.listener = facts.listener;
    this.startTime = facts.startTime;
    this.transportProtocol = facts.transportProtocol;
    this.serverName = facts.serverName;
    this.applicationProtocols = facts.applicationProtocols;
    this.chain = {
      resumeReading: () => this.#act(ACTION.RESUME_READING),
      injectWrite: (bytes, endStream = false) => {
        this.#send(ACTION.INJECT, bytes, 0, bytes.length);
        if (endStream) this.#act(ACTION.INJECT_END);
      },
    };
  }

  #act(action: number): void {
    if (!this.open) return;
    this.#around.outbox.open(ANSWER.ACTION, this.#token, action, 0);
    this.#around.outbox.close();
  }

  reserve(size: number): Output {
    return { memory: new Uint8Array(size), at: 0 };
  }

  commit(output: Output): void {
    this.write(output.memory, 0, output.at);
  }

  write(memory: Uint8Array, at: number, end: number): void {
    if (this.ended) return;
    this.bytesSent += end - at;
    this.#send(ACTION.WRITE, memory, at, end);
  }

  #send(action: number, memory: Uint8Array, at: number, end: number): void {
    if (!this.open) return;
    for (let from = at; from < end; from += PART_SIZE) {
      const to = Math.min(from + PART_SIZE, end);
      this.#around.outbox.send(ANSWER.ACTION, this.#token, action, memory, from, to);
    }
  }

  end(): void {
    this.#act(ACTION.END);
    this.ended = true;
  }

  close(how: "flush" | "abort" | "reset"): void {
    this.#act(
      how === "flush"
        ? ACTION.CLOSE_FLUSH
        : how === "abort"
          ? ACTION.CLOSE_ABORT
          : ACTION.CLOSE_RESET,
    );
    this.open = false;
  }

  closeDelayed(ms: number): void {
    if (!this.open) return;
    const { outbox } = this.#around;
    const at = outbox.open(ANSWER.ACTION, this.#token, ACTION.CLOSE_DELAYED, 4);
    outbox.words[at >> 2] = Math.max(0, Math.min(ms, 60_000)) | 0;
    outbox.close();
    this.ended = true;
  }

  pause(): void {
    this.#act(ACTION.PAUSE);
  }

  resume(): void {
    this.#act(ACTION.RESUME);
  }

  again: () => void = () => {};
}
