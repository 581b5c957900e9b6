import type { Counter, DecodeError } from "@tsproxy/sdk";

/** What a parser returns instead of an offset: 0 or a negative number; offsets are above 0. */
export const PARSE = {
  /** The bytes end before the head does. */
  INCOMPLETE: 0,
  MALFORMED: -1,
  INVALID_CHARACTERS: -2,
  TOO_MANY_HEADERS: -3,
  HEAD_TOO_LARGE: -4,
  INVALID_URL: -5,
  CONNECTION_REJECTED: -6,
  INVALID_TRANSFER_ENCODING: -7,
  TRANSFER_ENCODING_NOT_ALLOWED: -8,
  CONTENT_LENGTH_NOT_ALLOWED: -9,
  BODY_DISALLOWED: -10,
  UNDERSCORE: -11,
  LOW_VERSION: -12,
  LENGTH_BESIDE_CHUNKED: -13,
  INVALID_AUTHORITY: -14,
  INVALID_SCHEME: -15,
  HTTPS_IN_PLAINTEXT: -16,
} as const;

/** The server codec's counters, under `http1.`. */
export interface Http1Stats {
  readonly droppedHeaders: Counter;
  readonly rejectedRequests: Counter;
}

/** The local reply to each PARSE code: status, its reason phrase as body, and Envoy's string for %RESPONSE_CODE_DETAILS%. */
const requestErrors: Readonly<Record<number, DecodeError>> = {
  [PARSE.MALFORMED]: badRequest("http1.codec_error"),
  [PARSE.INVALID_CHARACTERS]: badRequest("http1.invalid_characters"),
  [PARSE.TOO_MANY_HEADERS]: tooLarge("http1.too_many_headers"),
  [PARSE.HEAD_TOO_LARGE]: tooLarge("http1.headers_too_large"),
  [PARSE.INVALID_URL]: badRequest("http1.invalid_url"),
  [PARSE.CONNECTION_REJECTED]: badRequest("http1.connection_header_rejected"),
  [PARSE.INVALID_TRANSFER_ENCODING]: {
    status: 501,
    body: "Not Implemented",
    details: "http1.invalid_transfer_encoding",
  },
  [PARSE.TRANSFER_ENCODING_NOT_ALLOWED]: badRequest("http1.transfer_encoding_not_allowed"),
  [PARSE.CONTENT_LENGTH_NOT_ALLOWED]: badRequest("http1.content_length_not_allowed"),
  [PARSE.LENGTH_BESIDE_CHUNKED]: badRequest("http1.content_length_and_chunked_not_allowed"),
  [PARSE.INVALID_AUTHORITY]: badRequest("http.invalid_authority"),
  [PARSE.INVALID_SCHEME]: badRequest("http1.invalid_scheme"),
  [PARSE.HTTPS_IN_PLAINTEXT]: {
    status: 403,
    body: "Forbidden",
    details: "http1.https_url_on_plaintext_connection",
  },
  [PARSE.BODY_DISALLOWED]: badRequest("http1.body_disallowed"),
  [PARSE.UNDERSCORE]: badRequest("http1.unexpected_underscore"),
  [PARSE.LOW_VERSION]: { status: 426, body: "Upgrade Required", details: "low_version" },
};

function badRequest(details: string): DecodeError {
  return { status: 400, body: "Bad Request", details };
}

function tooLarge(details: string): DecodeError {
  return { status: 431, body: "Request Header Fields Too Large", details };
}

export function requestError(code: number): DecodeError {
  return requestErrors[code]!;
}

/** The local reply when an upstream's response breaks the protocol: 502 with the details of the error. */
export function responseError(code: number): DecodeError {
  return { status: 502, body: "Bad Gateway", details: requestErrors[code]!.details };
}
