import type { StreamPart } from "@tsproxy/sdk";

/**
 * What crosses between a stream's chain, core and a sandbox. Three parties read this file: the stubs in the chain write
 * records, core carries them over, the prelude of the sandbox reads them and writes answers.
 *
 *   chain isolate            core                      sandbox
 *   record ───── park ─────▶ copied natively ────────▶ hook runs
 *   verdict ◀─── event ───── checked, copied ◀──────── answer
 *
 * All numbers are Int32 words, all offsets bytes, all records and answers begin at a multiple of 8.
 */

/** What a filter has; `HookMask` of a package is the union of what its source names, of a stream what its object has. */
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
  /** Not hooks: the source reads these parts of its stream. */
  INFO: 1 << 16,
  ROUTE_CONFIG: 1 << 17,
  ROUTE: 1 << 18,
  METADATA: 1 << 19,
  FILTER_STATE: 1 << 20,
  CONNECTION_STATE: 1 << 21,
  DOWNSTREAM: 1 << 22,
  /** Of balancers: it reads `activeRequests` of hosts. */
  ACTIVE_REQUESTS: 1 << 23,
} as const;
export type HookMask = number;

/** Parts of a stream that go over when they are asked for. */
export const STREAM_PARTS: readonly (readonly [part: StreamPart, bit: number])[] = [
  ["info", HOOK.INFO],
  ["route", HOOK.ROUTE],
  ["metadata", HOOK.METADATA],
  ["filterState", HOOK.FILTER_STATE],
  ["connectionState", HOOK.CONNECTION_STATE],
  ["downstreamConnection", HOOK.DOWNSTREAM],
];

/** Method names of the hooks, by their bit. */
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
 * A token names a stream's place in one filter: generation << 19 | slot << 1 | lane. Lane 0 are hooks of the request (or what a
 * client sends), lane 1 those of the response (or what is sent to it). Slots are reused, so tables are arrays; the generation tells old from new.
 */
export const SLOT_BITS = 18;
export const SLOT_MAX = 1 << SLOT_BITS;
export const GENERATION_MAX = 1 << 12;
export const slotOf = (token: number): number => (token >>> 1) & (SLOT_MAX - 1);
export const baseOf = (token: number): number => token & ~1;
export const makeToken = (slot: number, generation: number): number =>
  (generation << (SLOT_BITS + 1)) | (slot << 1);

/** Kinds of records. */
export const KIND = {
  /** Makes the filter object, calls no hook. */
  CREATE: 1,
  REQUEST_HEADERS: 2,
  REQUEST_BODY: 3,
  REQUEST_TRAILERS: 4,
  RESPONSE_HEADERS: 5,
  RESPONSE_BODY: 6,
  RESPONSE_TRAILERS: 7,
  /** The beginning of a chunk that is too long for one record. */
  PART: 8,
  /** Makes a network filter; argument: bytes of the JSON text that follows. */
  CONNECTION: 9,
  CONNECT: 10,
  DATA: 11,
  /** argument: one of NOTICE. */
  NOTICE: 12,
  /** What has changed in what is known of a stream. argument: bytes of the JSON text that follows. */
  FACTS: 13,
  /** Not of a stream: what core answers to a call. argument: bytes of the JSON text; the range is its bytes. */
  REPLY: 14,
  /** Bytes that go to a client; lane 1. */
  WRITE: 15,
  /** A question of one who asks. argument: bytes of the JSON text that follows; the range is its bytes. */
  ASK: 16,
  /** Hosts of a balancer's set. argument: bytes of the JSON text that follows. */
  HOSTS: 17,
  /** A balancer is asked for a host. The payload is CHOICE. */
  CHOOSE: 18,
} as const;

export const NOTICE = { DRAIN: 1, BLOCKED: 2, DRAINED: 3, CLOSE: 4 } as const;

export const RECORD_FLAG = {
  /** The filter object does not exist yet: the payload begins with what it is made from. */
  CREATE: 1,
  END_STREAM: 2,
  /** The chain waits for a verdict (or, for a PART, for leave to send the next one). */
  ANSWER: 4,
  /** The stream began at the gate: core has not heard of it. */
  ADOPT: 8,
  /**
   * A head again, for the next filter of the stream: its hook runs if that of the record before has let the head pass, on what that
   * one made of it, and one verdict tells of both. The payload is FOLLOW.
   */
  FOLLOWS: 16,
} as const;

/**
 * Words of a record's head. The range is bytes that belong to it, a head or a chunk: where they lie in the worker's memory, or
 * (RANGE_AT 0) the tail of the record, which is filled up to a multiple of 8.
 */
export const RECORD = {
  /** kind | flags << 8 */
  KIND: 0,
  TOKEN: 1,
  USE: 2,
  RANGE_AT: 3,
  RANGE_SIZE: 4,
  /** Free for the kind. */
  ARGUMENT: 5,
  PAYLOAD: 6,
} as const;

/**
 * Words of a head's payload, from RECORD.PAYLOAD; then spans, string lengths, strings, and the bytes of earlier filters' edits.
 * The head's own bytes are the range. Edits are spans as well: they follow the head's, over bytes that follow the head's.
 */
export const HEAD = {
  COUNT: 0,
  /** Bytes that the spans lie in. */
  BYTES: 1,
  METHOD_AT: 2,
  METHOD_END: 3,
  PATH_AT: 4,
  PATH_END: 5,
  /** Spans of `HeaderMap.added`, then of `HeaderMap.lines`. */
  ADDED: 6,
  LINES: 7,
  EDIT_BYTES: 8,
  PRESENT: 9,
  FLAGS: 10,
  STATUS: 11,
  SPANS: 12,
} as const;
export const HEAD_FLAG = {
  /** A string follows, in this order. */
  METHOD: 1,
  PATH: 2,
  ROUTE_CONFIG: 4,
  FACTS: 8,
  HTTPS: 16,
} as const;

/** Words of the payload of a record that follows another; then the strings. */
export const FOLLOW = {
  /** Bytes of the per-route config and of facts: JSON in ASCII. */
  ROUTE_CONFIG: 0,
  FACTS: 1,
  STRINGS: 2,
} as const;

/** Words of what a balancer is asked with; then requests under way by host, then text. The answer's VALUE: the host's place, or -1. */
export const CHOICE = {
  ATTEMPT: 0,
  FLAGS: 1,
  HASH_LOW: 2,
  HASH_HIGH: 3,
  /** How many hosts' requests follow. */
  ACTIVE: 4,
  /** Bytes of `metadataMatch` as JSON. */
  TEXT: 5,
  REST: 6,
} as const;
export const CHOICE_FLAG = { HASH: 1, HIGH: 2, METADATA: 4 } as const;

/** Bytes of private memory (and words) in one record, and bytes of its range. */
export const RECORD_BLOCK_MAX = 80 * 1024;
export const RANGE_MAX = 64 * 1024;
/** A chunk goes over in pieces of this size when it is longer than RANGE_MAX or lies in private memory. */
export const PART_SIZE = 32 * 1024;
/** Longer chunks are not taken into a sandbox, nor out of it. */
export const CHUNK_MAX = 8 * 1024 * 1024;

/** Kinds of answers. */
export const ANSWER = {
  /** It was for a stream of the gate. */
  TAKEN: 0,
  VERDICT: 1,
  /** The beginning of a replaced chunk or of a reply's body. */
  PART: 2,
  /** argument: one of ACTION; network filters only. */
  ACTION: 3,
  /** For core: JSON text. */
  LOG: 4,
  /** A hook threw. */
  THROWN: 5,
  STATS: 6,
  /** Leave to send the next PART. */
  ACK: 7,
  /** Calls that core answers later. argument: bytes of the JSON text that the payload begins with; bytes follow it. */
  FETCH: 8,
  CRYPTO: 9,
  /** For core: JSON text of [path, lines] for a file. */
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
  /** Past this filter; the second with FIN behind. */
  INJECT: 10,
  INJECT_END: 11,
} as const;

/** Words of an answer's head. */
export const ANSWER_HEAD = { KIND: 0, TOKEN: 1, SIZE: 2, ARGUMENT: 3, PAYLOAD: 4 } as const;
export const ANSWER_HEAD_SIZE = 16;

/** Words of a verdict, from ANSWER_HEAD.PAYLOAD; then edits, reply and bytes as the flags say. */
export const VERDICT = {
  /** type | flags << 8 | followers that let the head pass << 24; with STOPPED, the next one has been asked and answers for itself */
  TYPE: 0,
  /** Hooks that the filter object has (with FLAG.HOOKS). */
  HOOKS: 1,
  /** Status of a reply, limit of a hold. */
  VALUE: 2,
  /** Bytes that follow for the chunk's place or the reply's body; parts came before. */
  BODY: 3,
  REST: 4,
} as const;
export const VERDICT_TYPE = {
  GO_ON: 0,
  REPLY: 1,
  HOLD_BUFFER: 2,
  HOLD_STREAM: 3,
  DONE: 4,
  /** Of a network filter; of a balancer: it does not know its hosts. */
  STOP: 5,
  /** The hook threw or was late. */
  FAULT: 6,
  /** Of a trailers hook: the body's bytes are the message's last. */
  LAST_CHUNK: 7,
} as const;
export const VERDICT_FLAG = {
  HOOKS: 1,
  EDITS: 2,
  BODY: 4,
  CLEAR_ROUTE: 8,
  /** First of what follows: bytes of a JSON text, and it, filled up to a multiple of 4. */
  FACTS: 16,
  /** Of a hold. */
  EXCEPT_LAST: 32,
  STOPPED: 64,
  /** Of a reply. */
  UNEDITED: 128,
  /** Of a hold: it waits for trailers, too. */
  TRAILERS: 256,
  /** Of a trailers hook: edits of the head that is held back follow those of the trailers. */
  HEAD_EDITS: 512,
} as const;

/**
 * Words of edits; then dropped spans of the head, dropped edits of before (their places in `lines`, then `added`, rising), name and
 * value lengths, and the bytes of all strings.
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
/** Words of a reply; then name and value lengths, flag lengths, and the bytes: details, flags, names and values. */
export const REPLY = {
  HEADERS: 0,
  FLAGS: 1,
  DETAILS: 2,
  /** `grpcStatus`; -1: none. */
  GRPC_STATUS: 3,
  REST: 4,
} as const;

/** Edits, replies and the like must fit one answer; only bodies go in parts. */
export const ANSWER_MAX = 48 * 1024;

/** What core answers by itself, in the place of a verdict. */
export const STATUS = {
  /** Send the next part. */
  ACK: 100,
  /** The failure policy says to go on without the filter. */
  SKIP: 200,
  /** The sandbox was stopped while it had the record. */
  GONE: 410,
  FAULT: 500,
  OVERLOAD: 503,
  LATE: 504,
} as const;

/** The sandbox's own block. */
const RECORD_COUNT = 512;
export const BOX = {
  /** Control words. */
  OUT_USED: 0,
  /** 1: answers are left over; enter again. */
  MORE: 1,
  /** Float64 at these words: monotonic milliseconds, and when a timer wants to fire (Infinity: none does). */
  NOW: 4,
  WAKE_AT: 6,
  /** Byte offsets. */
  RECORDS: 64,
  RECORD_COUNT,
  HEAP: 64 + RECORD_COUNT * 16,
  HEAP_SIZE: 192 * 1024,
  OUT: 64 + RECORD_COUNT * 16 + 192 * 1024,
  OUT_SIZE: 96 * 1024,
  TOTAL: 64 + RECORD_COUNT * 16 + 288 * 1024,
} as const;
/**
 * Words beside the block that core and the chain share and the sandbox does not see. Both put records into the block and enter the
 * sandbox: the chain within the crossing that made the records, as long as the gate is open; core otherwise. Never both at a time.
 */
export const GATE = {
  /** 1: the chain may enter. -1: it never may again. */
  OPEN: 0,
  /** Records in the block, and the bytes they take of HEAP. */
  COUNT: 1,
  USED: 2,
  /** Odd while inside. */
  BEAT: 3,
  /** What the chain's entries since core last looked came to. */
  ENTRIES: 4,
  RECORDS: 5,
  BYTES: 6,
  BYTES_OUT: 7,
  /** 1: one of them took longer than LIMIT_MS, which is core's to set. */
  SLOW: 8,
  LIMIT_MS: 9,
  /** 1: one of them was stopped. */
  FAULT: 10,
  /** Tokens that one of them left without an answer, which core waits for. */
  PENDING_COUNT: 11,
  PENDING: 16,
  PENDING_MAX: 1024,
  WORDS: 16 + 1024,
} as const;
/** A place in the table of records: block at, block size, range at, range size. An end is [-1, token, 0, 0]. */
export const RECORD_WORDS = 4;
/** A full block may take longer than one record: a limit of time is for each of so many. */
export const RECORDS_OF_LIMIT = 64;
/** Cells of the sandbox's own stats. */
export const STATS_CELLS = 8192;

/** Framing and hop-by-hop fields: the codec's own (RFC 9110 §7.6.1, RFC 9112 §6). */
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
