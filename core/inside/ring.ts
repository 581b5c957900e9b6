/**
 * The memory that core and the builtin isolate of one worker share, and the words both use for what happens in it.
 *
 *   control words | event ring | command ring | offered ids | landing | segments | slots
 *
 * Sockets read into `landing` (core copies what they read into the input segment) or, while they move bulk, into a slot of
 * their own. The isolate puts what it writes into the output segment. The layout stands in the control words, so that a test
 * may run with tiny sizes.
 */
export const EVENT = {
  /** offset, length: text `listener|remote ip|remote port|local ip|local port|unix path` */
  ACCEPTED: 1,
  /** offset, length: the bytes, lent until the flush that delivers them ends */
  DATA: 2,
  EOF: 3,
  /** offset: CLOSED_FLAG bits; length: index in SOCKET_ERRORS */
  CLOSED: 4,
  BLOCKED: 5,
  DRAINED: 6,
  /** offset, length: text `local ip|local port` */
  CONNECTED: 7,
  /** id: token; offset, length: the answer of a sandbox (length -status: the core's own answer) */
  VERDICT: 8,
  /** offset, length: JSON of how a TLS handshake went (`{ tls }` or `{ code, message }`), in ASCII */
  SECURED: 9,
  /** offset, length: text `ip|port`, a newline, and the bytes; length -n: the nth of SOCKET_ERRORS instead */
  DATAGRAM: 10,
  /** offset, length: text `listener|ip|port`: the id is the listener's socket */
  UDP_BOUND: 11,
} as const;

export const CLOSED_FLAG = { LOCAL: 1, CONNECTING: 2 } as const;

export const COMMAND = {
  WRITE: 1,
  /** offset, length: text `ip|port|path` */
  CONNECT: 2,
  /** offset: HOW */
  CLOSE: 3,
  END: 4,
  PAUSE: 5,
  RESUME: 6,
  /** The isolate will never name this id again. */
  RELEASE: 7,
  /** op holds box << 8; id: token; offset, length: a record */
  PARK: 8,
  /** id: token, op holds box << 8: nobody waits for this answer any more */
  FORGET: 9,
  /** offset, length: JSON of how TLS begins on this socket, in ASCII */
  TLS: 10,
  /** offset, length: bytes that were read before TLS began and are part of it */
  UNREAD: 11,
  /** offset, length: text `ip|port|ip to send from` */
  UDP_CONNECT: 12,
  /** offset, length: text `ip|port` or nothing, a newline, and the bytes */
  DATAGRAM: 13,
} as const;

/** REFUSE: length is the alert of TLS that the peer is told. */
export const HOW = { FLUSH: 0, ABORT: 1, RESET: 2, REFUSE: 3 } as const;

/** Indices of control words (Int32). The first ones change with every crossing; the others are the layout. */
export const WORD = {
  OUT_START: 0,
  OUT_END: 1,
  CONSUMED: 2,
  /** 1: the isolate has more to do without any event. */
  AGAIN: 3,
  /** Milliseconds until it wants to be called for its timers; -1: not at all. */
  WAKE_IN: 4,
  /** NOW_LOW/HIGH: a Float64 (word index even): monotonic milliseconds. */
  NOW: 6,
  EVENTS: 8,
  EVENT_COUNT: 9,
  COMMANDS: 10,
  COMMAND_COUNT: 11,
  IDS: 12,
  ID_COUNT: 13,
  SEGMENTS: 14,
  SEGMENT_SIZE: 15,
  SLOTS: 16,
  SLOT_SIZE: 17,
  LANDING: 18,
  TOTAL: 19,
  /** Counts crossings: odd while inside. The watchdog reads it. */
  BEAT: 20,
} as const;
const CONTROL_WORDS = 64;
const KB = 1024;

export interface RingSizes {
  readonly events: number;
  readonly commands: number;
  readonly segments: number;
  readonly slots: number;
}
// A connection that moves bulk over TLS holds up to three slots. Where none is left every chunk is copied, and 16 downloads at once cost
// a quarter more for garbage alone (test/bench/cpu.ts tls-1m); one that is never used is never touched, so it takes no memory.
export const DEFAULT_SIZES: RingSizes = { events: 1024, commands: 2048, segments: 16, slots: 128 };

/** Lays the memory out. At least 2 segments and 2 slots; 8 events and commands. */
export function createRing(sizes: RingSizes): SharedArrayBuffer {
  const regions: [word: number, size: number][] = [
    [WORD.EVENTS, sizes.events * 16],
    [WORD.COMMANDS, sizes.commands * 16],
    [WORD.IDS, Math.min(64, sizes.commands) * 4],
    [WORD.LANDING, 64 * KB],
    [WORD.SEGMENTS, sizes.segments * 256 * KB],
    [WORD.SLOTS, sizes.slots * 64 * KB],
  ];
  let at = CONTROL_WORDS * 4;
  const offsets = regions.map(([word, size]) => {
    const offset = at;
    at += Math.ceil(size / 64) * 64;
    return [word, offset] as const;
  });
  const shared = new SharedArrayBuffer(at);
  const control = new Int32Array(shared);
  for (const [word, offset] of offsets) control[word] = offset;
  control[WORD.EVENT_COUNT] = sizes.events;
  control[WORD.COMMAND_COUNT] = sizes.commands;
  control[WORD.ID_COUNT] = Math.min(64, sizes.commands);
  control[WORD.SEGMENT_SIZE] = 256 * KB;
  control[WORD.SLOT_SIZE] = 64 * KB;
  control[WORD.TOTAL] = at;
  return shared;
}

/** A connection id is generation << 16 | index: an index that is issued again makes another id. */
export const indexOf = (id: number): number => id & 0xffff;

/** Words of the socket that travel as numbers. */
export const SOCKET_ERRORS = [
  "",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "EACCES",
  "EMFILE",
  "ENOENT",
  "EINVAL",
  "ECONNABORTED",
  "EIO",
] as const;

/** Memory that all threads share: so many counts for turns (names fold onto them, so a power of two), then the heap of cells. */
export const TURNS = 1 << 16;
