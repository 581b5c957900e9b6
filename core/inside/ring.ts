/**
 * The memory that core and the builtin isolate of one worker share, and the numbers that both use in it.
 *
 *   control words | event ring | command ring | offered ids | relayed | landing | segments | slots
 *
 * Crossing: core writes events (what sockets did) and enters the isolate; the isolate handles them and writes commands; core runs
 * these when the isolate returns. An event is four words: kind, id of the connection, and two more as told below; a command: op,
 * id and two more. Sockets read into `landing`, from where core copies to the input segment, or, while they move bulk, into a
 * slot of their own. The isolate writes its output to the output segment. What core passes on by itself it counts in `relayed`,
 * which has cells for each index of a connection. Offsets of all parts are control words, so tests may use tiny sizes.
 */
export const EVENT = {
  /** offset, length: text `listener|remote ip|remote port|local ip|local port|unix path` */
  ACCEPTED: 1,
  /** offset, length: the bytes, lent until the crossing that delivers them has ended */
  DATA: 2,
  EOF: 3,
  /** offset: CLOSED_FLAG bits; length: index in SOCKET_ERRORS */
  CLOSED: 4,
  BLOCKED: 5,
  DRAINED: 6,
  /** offset, length: text `local ip|local port` */
  CONNECTED: 7,
  /** id: token; offset, length: the answer of a sandbox (length -status: core's own answer). See sandbox/layout.ts. */
  VERDICT: 8,
  /** offset, length: the result of a TLS handshake, `{ tls }` or `{ code, message }` as JSON in ASCII */
  SECURED: 9,
  /** offset, length: text `ip|port`, a newline, and the bytes; length -n: the nth of SOCKET_ERRORS instead */
  DATAGRAM: 10,
  /** offset, length: text `listener|ip|port`: the id is the listener's socket */
  UDP_BOUND: 11,
  /** offset: bytes written that the kernel has not taken; told whenever that changes */
  UNSENT: 12,
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
  /** A record for a sandbox. op holds box << 8; id: token; offset, length: the record */
  PARK: 8,
  /** The stream behind a token has ended. op holds box << 8; id: token */
  FORGET: 9,
  /** Begin TLS on this socket. offset, length: its options as JSON in ASCII */
  TLS: 10,
  /** offset, length: bytes already read from the socket that belong to the TLS handshake */
  UNREAD: 11,
  /** offset, length: text `ip|port|ip to send from` */
  UDP_CONNECT: 12,
  /** offset, length: text `ip|port` or nothing, a newline, and the bytes */
  DATAGRAM: 13,
  /** The client's certificate was accepted: core sends the rest of the TLS handshake. */
  ACCEPT_PEER: 14,
  /** Make two connections of the isolate, connected with each other. offset: the other id; length: bytes that may wait in each */
  PAIR: 15,
  /**
   * Write what either of two connections reads to the other, without DATA events. offset: the other id; length: 1, or 0: no longer.
   * Only what holds at the end of a flush matters.
   */
  RELAY: 16,
} as const;

/**
 * Float64 cells of a connection in `relayed`: how many of its bytes have been passed on, the size of the last read among them, and
 * when that was, on the clock of NOW.
 */
export const RELAYED = { BYTES: 0, SIZE: 1, AT: 2, CELLS: 3 } as const;

/** How CLOSE closes. REFUSE: the command's length is the TLS alert to send. */
export const HOW = { FLUSH: 0, ABORT: 1, RESET: 2, REFUSE: 3 } as const;

/** Indices of control words (Int32). Those before EVENTS, and BEAT, change with every crossing; the others are the layout. */
export const WORD = {
  OUT_START: 0,
  OUT_END: 1,
  CONSUMED: 2,
  /** 1: the isolate wants another crossing, even without an event. */
  AGAIN: 3,
  /** Milliseconds until the isolate's next timer fires; -1: none is armed. */
  WAKE_IN: 4,
  /** Two words, a Float64: monotonic milliseconds. */
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
  RELAYED: 21,
} as const;
const CONTROL_WORDS = 64;
const KB = 1024;

/** Numbers of events, commands, segments (256 KiB) and slots (64 KiB). */
export interface RingSizes {
  readonly events: number;
  readonly commands: number;
  readonly segments: number;
  readonly slots: number;
}
// A connection that moves bulk over TLS holds up to three slots. When none is free every chunk is copied, and 16 downloads at
// once cost a quarter more CPU, for garbage alone (test/bench/cpu.ts tls-1m). A slot that is never used takes no memory.
export const DEFAULT_SIZES: RingSizes = { events: 1024, commands: 2048, segments: 16, slots: 128 };

/** Allocates the memory and writes its layout. Needs at least 2 segments, 2 slots, 8 events and 8 commands. */
export function createRing(sizes: RingSizes): SharedArrayBuffer {
  const regions: [word: number, size: number][] = [
    [WORD.EVENTS, sizes.events * 16],
    [WORD.COMMANDS, sizes.commands * 16],
    [WORD.IDS, Math.min(64, sizes.commands) * 4],
    // Pages that no relay has touched take no memory.
    [WORD.RELAYED, INDEXES * RELAYED.CELLS * 8],
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

/** Ids have 16 bits of index. */
export const INDEXES = 1 << 16;

/** The index in a connection id, which is generation << 16 | index; an index that is reused gets another generation. */
export const indexOf = (id: number): number => id & 0xffff;

/** Error codes of sockets, sent by index. */
export const SOCKET_ERRORS = [
  "",
  "ECONNREFUSED",
  "ECONNRESET",
  "EPIPE",
  "ETIMEDOUT",
  "EHOSTUNREACH",
  "ENETUNREACH",
  "EADDRNOTAVAIL",
  "EADDRINUSE",
  "EACCES",
  "EMFILE",
  "ENOENT",
  "EINVAL",
  "ECONNABORTED",
  "EIO",
] as const;

/**
 * Number of `cx.turns` counters in the memory that all threads share; a power of two, since names are hashed to counters. The
 * cell heap follows them.
 */
export const TURNS = 1 << 16;
