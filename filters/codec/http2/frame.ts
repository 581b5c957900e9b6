/** Frame types (RFC 9113 §6). */
export const TYPE = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PUSH_PROMISE: 5,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const;

export const FLAG = { END_STREAM: 1, ACK: 1, END_HEADERS: 4, PADDED: 8, PRIORITY: 0x20 } as const;

/** Error codes (RFC 9113 §7). */
export const CODE = {
  NO_ERROR: 0,
  PROTOCOL_ERROR: 1,
  INTERNAL_ERROR: 2,
  FLOW_CONTROL_ERROR: 3,
  STREAM_CLOSED: 5,
  FRAME_SIZE_ERROR: 6,
  REFUSED_STREAM: 7,
  CANCEL: 8,
  COMPRESSION_ERROR: 9,
  CONNECT_ERROR: 10,
  ENHANCE_YOUR_CALM: 11,
} as const;

/** Setting identifiers (RFC 9113 §6.5.2, RFC 8441 §3). */
export const SETTING = {
  HEADER_TABLE_SIZE: 1,
  ENABLE_PUSH: 2,
  MAX_CONCURRENT_STREAMS: 3,
  INITIAL_WINDOW_SIZE: 4,
  MAX_FRAME_SIZE: 5,
  MAX_HEADER_LIST_SIZE: 6,
  ENABLE_CONNECT_PROTOCOL: 8,
} as const;

export const FRAME_HEAD = 9;
export const DEFAULT_WINDOW = 65_535;
export const LARGEST_WINDOW = 0x7fff_ffff;
/** The largest payload that we accept, and the default for a peer that has not set SETTINGS_MAX_FRAME_SIZE. */
export const MAX_FRAME_SIZE = 16_384;
export const LARGEST_FRAME_SIZE = 0xff_ffff;
export const LAST_STREAM_ID = 0x7fff_ffff;

export const PREFACE = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/** Envoy's strings for %RESPONSE_CODE_DETAILS% of a stream that ended by the peer's error or reset. */
export const DETAILS = {
  MESSAGE: "http2.violation.of.messaging.rule",
  FIELD: "http2.invalid.header.field",
  TOO_LARGE: "http2.header_list_size_too_large",
  TOO_MANY: "http2.too_many_headers",
  UNDERSCORE: "http2.unexpected_underscore",
  RESET: "http2.remote_reset",
  REFUSED: "http2.remote_refuse",
  /** Frames that break the protocol. */
  CODEC: "codec_error:The_user_callback_function_failed",
  /** The stream's frame was not to be sent, or not on a stream, or not any more. */
  MISPLACED: "http2.unknown.nghttp2.error",
} as const;

export function uint32(memory: Uint8Array, at: number): number {
  return (
    ((memory[at]! << 24) | (memory[at + 1]! << 16) | (memory[at + 2]! << 8) | memory[at + 3]!) >>> 0
  );
}

export function uint31(memory: Uint8Array, at: number): number {
  return uint32(memory, at) & 0x7fff_ffff;
}
