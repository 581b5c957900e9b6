import type { StreamPart } from "@tsproxy/sdk";

/**
 * The protocol between a filter chain and the sandbox (isolate) of a dropped-in package. The stubs in the chain (parked-*.ts)
 * write records, core carries them over, the code in the sandbox (this folder) reads them and writes answers.
 *
 *   chain isolate            core                      sandbox
 *   record ───── park ─────▶ copied natively ────────▶ hook runs
 *   verdict ◀─── event ───── checked, copied ◀──────── answer
 *
 * Record: one hook call, with the head or chunk it is about. Verdict: the answer that says what a hook returned.
 * Box: one sandbox; also its block of shared memory (BOX), which holds incoming records, their bytes, and answers.
 * Use: one place in the config that uses the package. Part: one per-route config of a use; 0: the use's own config. Faults are
 * charged to both together, the account. Token: one stream in one filter. Lane: one direction of that stream.
 * Gate: the way past core (gate.ts): the chain writes into the block itself and enters the sandbox within its own crossing.
 * Crossing: one call of `run` in the chain's isolate (ring.ts). Entry: one call of `run` in the sandbox, by core or by a gate.
 *
 * All numbers are Int32 words, all offsets are bytes, all records and answers begin at a multiple of 8.
 */

/** Bits of a HookMask. A package's mask: all hooks that its source mentions; a stream's mask: the hooks of its filter object. */
export const HOOK = {
  REQUEST_HEADERS: 1 << 0,
  REQUEST_BODY: 1 << 1,
  REQUEST_TRAILERS: 1 << 2,
  RESPONSE_HEADERS: 1 << 3,
  RESPONSE_BODY: 1 << 4,
  RESPONSE_TRAILERS: 1 << 5,
  END: 1 << 6,
  CONNECT: 1 << 7,
  DATA: 1 << 8,
  DRAIN: 1 << 9,
  BLOCKED: 1 << 10,
  DRAINED: 1 << 11,
  CLOSE: 1 << 12,
  WRITE: 1 << 13,
  /** From here on not hooks: the package's source reads these parts of the stream. */
  INFO: 1 << 16,
  ROUTE_CONFIG: 1 << 17,
  ROUTE: 1 << 18,
  METADATA: 1 << 19,
  FILTER_STATE: 1 << 20,
  CONNECTION_STATE: 1 << 21,
  DOWNSTREAM: 1 << 22,
  /** Balancers only: the source reads `activeRequests` of hosts. */
  ACTIVE_REQUESTS: 1 << 23,
  /** Told by setup: the filters keep nothing from one hook to the next (`stateless` of HttpFilterFactory and NetworkFilterFactory). */
  STATELESS: 1 << 24,
} as const;
export type HookMask = number;

/** Parts of a stream that are sent to the sandbox only if the package's source reads them. */
export const STREAM_PARTS: readonly (readonly [part: StreamPart, bit: number])[] = [
  ["info", HOOK.INFO],
  ["route", HOOK.ROUTE],
  ["metadata", HOOK.METADATA],
  ["filterState", HOOK.FILTER_STATE],
  ["connectionState", HOOK.CONNECTION_STATE],
  ["downstreamConnection", HOOK.DOWNSTREAM],
];

/** Method names of the hooks with their bits. */
export const HOOK_NAMES: readonly (readonly [name: string, bit: number])[] = [
  ["onRequestHeaders", HOOK.REQUEST_HEADERS],
  ["onRequestBody", HOOK.REQUEST_BODY],
  ["onRequestTrailers", HOOK.REQUEST_TRAILERS],
  ["onResponseHeaders", HOOK.RESPONSE_HEADERS],
  ["onResponseBody", HOOK.RESPONSE_BODY],
  ["onResponseTrailers", HOOK.RESPONSE_TRAILERS],
  ["onEnd", HOOK.END],
  ["onConnect", HOOK.CONNECT],
  ["onData", HOOK.DATA],
  ["onDrain", HOOK.DRAIN],
  ["onBlocked", HOOK.BLOCKED],
  ["onDrained", HOOK.DRAINED],
  ["onClose", HOOK.CLOSE],
  ["onWrite", HOOK.WRITE],
];

/**
 * A token names one stream in one filter: generation << 19 | slot << 1 | lane. Lane 0 is for hooks of the request (or bytes from
 * the client), lane 1 for hooks of the response (or bytes to the client). Slots are reused, each time with another generation.
 */
const SLOT_BITS = 18;
export const SLOT_MAX = 1 << SLOT_BITS;
export const GENERATION_MAX = 1 << 12;
export const slotOf = (token: number): number => (token >>> 1) & (SLOT_MAX - 1);
export const baseOf = (token: number): number => token & ~1;
export const makeToken = (slot: number, generation: number): number =>
  (generation << (SLOT_BITS + 1)) | (slot << 1);

/** Kinds of records. */
export const KIND = {
  /** Creates the filter object, calls no hook. */
  CREATE: 1,
  REQUEST_HEADERS: 2,
  REQUEST_BODY: 3,
  REQUEST_TRAILERS: 4,
  RESPONSE_HEADERS: 5,
  RESPONSE_BODY: 6,
  RESPONSE_TRAILERS: 7,
  /** The beginning of a chunk that is too long for one record. */
  PART: 8,
  /** Creates a network filter object. argument: bytes of the JSON text that follows. */
  CONNECTION: 9,
  CONNECT: 10,
  DATA: 11,
  /** argument: one of NOTICE. */
  NOTICE: 12,
  /** Parts of the stream (STREAM_PARTS) that have changed. argument: bytes of the JSON text that follows. */
  FACTS: 13,
  /** Core's reply to a FETCH or CRYPTO call; it belongs to no stream. argument: bytes of the JSON text; the range: its body. */
  REPLY: 14,
  /** Bytes for the client; lane 1. */
  WRITE: 15,
  /** A question of ParkedAsk. argument: bytes of the JSON text that follows; the range: the bytes that go with it. */
  ASK: 16,
  /** Hosts that a balancer chooses from. argument: bytes of the JSON text that follows. */
  HOSTS: 17,
  /** A balancer is asked for a host. The payload is CHOICE. */
  CHOOSE: 18,
} as const;

export const NOTICE = { DRAIN: 1, BLOCKED: 2, DRAINED: 3, CLOSE: 4 } as const;

export const RECORD_FLAG = {
  /** The filter object does not exist yet: the payload begins with what it is created from. */
  CREATE: 1,
  END_STREAM: 2,
  /** The chain waits for a verdict (for a PART: for the ACK that allows the next PART). */
  ANSWER: 4,
  /** The stream began at the gate, and this is its first record that goes through core. */
  ADOPT: 8,
  /**
   * The head of the record before, for the next filter of the same stream (a follower). The follower's hook runs only if the
   * filter before it let the head pass, and sees that filter's edits. One verdict answers for both. The payload is FOLLOW.
   */
  FOLLOWS: 16,
} as const;

/** Parts of one use have numbers up to this; further ones share the last. */
export const PART_MAX = 0xffff;
/** The bits that name `part` among the flags of a record. */
export const partFlags = (part: number): number => part << 8;
/** The part that a record is charged to, from its first word. */
export const partOf = (kind: number): number => kind >>> 16;

/**
 * Words of a record's head. The range is the bytes of the HTTP head or chunk that the record is about: RANGE_AT is their offset
 * in the worker's memory, or 0 if they are the tail of the record (padded to a multiple of 8).
 */
export const RECORD = {
  /** kind | flags << 8 | part << 16 */
  KIND: 0,
  TOKEN: 1,
  USE: 2,
  RANGE_AT: 3,
  RANGE_SIZE: 4,
  /** Its meaning depends on the kind. */
  ARGUMENT: 5,
  PAYLOAD: 6,
} as const;

/**
 * Payload words of a record with an HTTP head, from RECORD.PAYLOAD; then spans, string lengths, strings, and the bytes of edits
 * that earlier filters made. The head's own bytes are the range. Edits are spans too, and come after the head's spans and bytes.
 */
export const HEAD = {
  COUNT: 0,
  /** Size of the head's own bytes. */
  BYTES: 1,
  METHOD_AT: 2,
  METHOD_END: 3,
  PATH_AT: 4,
  PATH_END: 5,
  /** Number of spans made from `HeaderMap.added`, and (LINES) from `HeaderMap.lines`. */
  ADDED: 6,
  LINES: 7,
  EDIT_BYTES: 8,
  PRESENT: 9,
  FLAGS: 10,
  STATUS: 11,
  SPANS: 12,
} as const;
export const HEAD_FLAG = {
  /** The first four: such a string follows; strings are in the order of these flags. */
  METHOD: 1,
  PATH: 2,
  ROUTE_CONFIG: 4,
  FACTS: 8,
  HTTPS: 16,
} as const;

/** Payload words of a record with RECORD_FLAG.FOLLOWS; then the strings. */
export const FOLLOW = {
  /** Sizes of the per-route config and of the facts, both JSON in ASCII. */
  ROUTE_CONFIG: 0,
  FACTS: 1,
  STRINGS: 2,
} as const;

/** Payload words of CHOOSE; then active requests of each host, then text. Verdict VALUE: index of the chosen host, or -1. */
export const CHOICE = {
  ATTEMPT: 0,
  FLAGS: 1,
  HASH_LOW: 2,
  HASH_HIGH: 3,
  /** Number of hosts whose active requests follow: all or none. */
  ACTIVE: 4,
  /** Bytes of `metadataMatch` as JSON. */
  TEXT: 5,
  REST: 6,
} as const;
export const CHOICE_FLAG = { HASH: 1, HIGH: 2, METADATA: 4 } as const;

/** Largest record with its head and tail, and largest range, in bytes. */
export const RECORD_BLOCK_MAX = 80 * 1024;
export const RANGE_MAX = 64 * 1024;
/** A chunk is sent in PARTs of this size when it is longer than RANGE_MAX or lies outside the worker's memory. */
export const PART_SIZE = 32 * 1024;
/** Longer chunks are accepted in neither direction. */
export const CHUNK_MAX = 8 * 1024 * 1024;

/** Kinds of answers. */
export const ANSWER = {
  /** A gate has already handed this answer to its stream; core skips it. */
  TAKEN: 0,
  VERDICT: 1,
  /** The beginning of a long replacement chunk or reply body; the verdict carries the rest. */
  PART: 2,
  /** argument: one of ACTION; network filters only. */
  ACTION: 3,
  /** For core: JSON text. */
  LOG: 4,
  /** A hook threw. */
  THROWN: 5,
  STATS: 6,
  /** The next PART may be sent. */
  ACK: 7,
  /** Calls that core answers later with a REPLY record. The payload: JSON text, its size the argument, then the call's bytes. */
  FETCH: 8,
  CRYPTO: 9,
  /** For core: JSON text of [path, lines], to append to a file. */
  LINES: 10,
} as const;

export const ACTION = {
  WRITE: 1,
  END: 2,
  CLOSE_FLUSH: 3,
  CLOSE_ABORT: 4,
  CLOSE_RESET: 5,
  /** payload: one word, milliseconds */
  CLOSE_DELAYED: 6,
  PAUSE: 7,
  RESUME: 8,
  RESUME_READING: 9,
  /** `injectWrite` of the chain: bytes to the client that this filter does not see again. INJECT_END ends the write half. */
  INJECT: 10,
  INJECT_END: 11,
} as const;

/** Words of an answer's head. */
export const ANSWER_HEAD = { KIND: 0, TOKEN: 1, SIZE: 2, ARGUMENT: 3, PAYLOAD: 4 } as const;
export const ANSWER_HEAD_SIZE = 16;

/** Words of a verdict, from ANSWER_HEAD.PAYLOAD; then edits, reply and bytes as the flags say. */
export const VERDICT = {
  /** type | flags << 8 | number of followers that let the head pass << 24. STOPPED: the next follower sends its own verdict. */
  TYPE: 0,
  /** Hooks that the filter object has (if VERDICT_FLAG.HOOKS is set); above bit 16 those of followers that let the head pass. */
  HOOKS: 1,
  /** Status of a reply, limit of a hold. */
  VALUE: 2,
  /** Size of the replacement chunk or reply body in this answer; earlier PARTs come before it. */
  BODY: 3,
  REST: 4,
} as const;
export const VERDICT_TYPE = {
  GO_ON: 0,
  REPLY: 1,
  HOLD_BUFFER: 2,
  HOLD_STREAM: 3,
  DONE: 4,
  /** A network filter returned `stop`; a balancer does not know its hosts. */
  STOP: 5,
  /** The hook threw or was late. */
  FAULT: 6,
  /** The hook returned `lastChunk()`: the answer's body bytes are the last of the message. */
  LAST_CHUNK: 7,
} as const;
export const VERDICT_FLAG = {
  HOOKS: 1,
  EDITS: 2,
  BODY: 4,
  CLEAR_ROUTE: 8,
  /** Facts come first in what follows: the size of a JSON text, then the text, padded to a multiple of 4. */
  FACTS: 16,
  /** `exceptLast` of a hold. */
  EXCEPT_LAST: 32,
  /** A follower did not let the head pass; see VERDICT.TYPE. */
  STOPPED: 64,
  /** `unedited` of a reply. */
  UNEDITED: 128,
  /** `trailers` of a hold: the body waits for the trailers too. */
  TRAILERS: 256,
  /** From a trailers hook: behind the trailers' edits follow edits of the head, which is still held. */
  HEAD_EDITS: 512,
  /** `early` of a reply. */
  EARLY: 1024,
  /** `flagsLate` of a reply. */
  FLAGS_LATE: 2048,
} as const;

/**
 * Words of the edits of one head; then indices of removed spans of the head, indices of removed earlier edits (counted through
 * `HeaderMap.lines`, then `HeaderMap.added`, rising), name and value lengths, and the bytes of all strings.
 */
export const EDITS = {
  DROPS: 0,
  REMOVED: 1,
  ADDED: 2,
  METHOD: 3,
  PATH: 4,
  STATUS: 5,
  REST: 6,
} as const;
/** Words of a local reply; then lengths of response flags, names and values, and the bytes: details, `contentType`, flags, names and values. */
export const REPLY = {
  HEADERS: 0,
  FLAGS: 1,
  DETAILS: 2,
  /** `grpcStatus`; -1: none. */
  GRPC_STATUS: 3,
  /** `contentType`; -1: none. */
  TYPE: 4,
  REST: 5,
} as const;

/** Edits and replies must fit one answer; only bodies are split into PARTs. */
export const ANSWER_MAX = 48 * 1024;

/** Core's own answer in the place of a verdict, sent as a negative size. */
export const STATUS = {
  /** The sandbox's ACK: send the next PART. */
  ACK: 100,
  /** The failure policy says to go on without the filter. */
  SKIP: 200,
  /** The isolate has ended and holds nothing of the stream; no hook was called with the record: it may be sent again. */
  AGAIN: 409,
  /** The sandbox was stopped before it answered. */
  GONE: 410,
  FAULT: 500,
  OVERLOAD: 503,
  LATE: 504,
} as const;

/** The block of memory that a sandbox shares with core and the chain. */
const RECORD_COUNT = 512;
export const BOX = {
  /** Control words. */
  OUT_USED: 0,
  /** 1: some answers found no room in OUT; the sandbox must be entered again. */
  MORE: 1,
  /** 1: `run` has reached its end. An error that the entry throws after that is an unhandled promise rejection. */
  RAN: 2,
  /** Number of records of this entry that have been begun. */
  BEGUN: 3,
  /** Float64 at these words: the time now, and when the next timer fires (Infinity: none), both in monotonic milliseconds. */
  NOW: 4,
  WAKE_AT: 6,
  /** The account of the code that runs now. USE 0: not known. */
  USE: 8,
  PART: 9,
  /** 1, set by core: this entry is for the records alone, or (if there are none) for due timers of one account. */
  ALONE: 10,
  /** 1: the package has been loaded and taken, so that an error is one of a setup. */
  ADOPTED: 11,
  /** Byte offsets: table of records, bytes of records, answers. */
  RECORDS: 64,
  RECORD_COUNT,
  HEAP: 64 + RECORD_COUNT * 16,
  HEAP_SIZE: 192 * 1024,
  OUT: 64 + RECORD_COUNT * 16 + 192 * 1024,
  OUT_SIZE: 96 * 1024,
  TOTAL: 64 + RECORD_COUNT * 16 + 288 * 1024,
} as const;
/** A gate's words, which core and the chain share and the sandbox does not see. gate.ts tells how they are used. */
export const GATE = {
  /** 1: the chain may enter. 0: not now. -1: never again, the isolate is gone. */
  OPEN: 0,
  /** Number of records in the block, and the bytes of HEAP that they use. */
  COUNT: 1,
  USED: 2,
  /** Odd while the chain is inside the sandbox. */
  BEAT: 3,
  /** Totals of the chain's entries since core last read them. */
  ENTRIES: 4,
  RECORDS: 5,
  BYTES: 6,
  BYTES_OUT: 7,
  /** 1: one of these entries took longer than LIMIT_MS, which core sets. */
  SLOW: 8,
  LIMIT_MS: 9,
  /** 1: the sandbox was stopped during one of these entries. */
  FAULT: 10,
  /** Tokens whose answer is still missing after the entry; core takes over the wait for them. */
  PENDING_COUNT: 11,
  PENDING: 16,
  PENDING_MAX: 1024,
  WORDS: 16 + 1024,
} as const;
/**
 * Words of an entry in the record table: offset and size of the record, then of its range. A stream's end: -1, token, use, part; the
 * chain leaves the last two 0.
 */
export const RECORD_WORDS = 4;
/** Time limits of an entry are for this many records; an entry with more of them may take proportionally longer. */
export const RECORDS_OF_LIMIT = 64;
/** Number of cells for the sandbox's own stats. */
export const STATS_CELLS = 8192;

/**
 * The streams whose records in the table of `count` all lie behind the first `begun`, by tokens with lane bit 0: the sandbox was
 * stopped before it has seen anything of them in this entry, or has only made the filter of a new connection.
 */
export function unbegunIn(words: Int32Array, begun: number, count: number): Set<number> {
  const streams = new Set<number>();
  const touched = new Set<number>();
  for (let k = 0; k < count; k++) {
    const i = (BOX.RECORDS >> 2) + k * RECORD_WORDS;
    const isEnd = words[i] === -1;
    const token = baseOf(isEnd ? words[i + 1]! : words[(words[i]! >> 2) + RECORD.TOKEN]!);
    if (k < begun && (isEnd || !isConnection(words, i))) touched.add(token);
    else if (!isEnd) streams.add(token);
  }
  for (const token of touched) streams.delete(token);
  return streams;
}

/** Whether the record at word `i` of the table makes a network filter and calls none of its hooks. */
export const isConnection = (words: Int32Array, i: number): boolean =>
  (words[words[i]! >> 2]! & 0xff) === KIND.CONNECTION;

/** Framing and hop-by-hop fields, which only the codec may set (RFC 9110 §7.6.1, RFC 9112 §6). */
export const FRAMING: ReadonlySet<string> = new Set([
  "content-length",
  "transfer-encoding",
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "upgrade",
]);
