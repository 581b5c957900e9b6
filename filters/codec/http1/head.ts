// Hot path: test/bench/http1-codec.ts. Parses first lines and, by fields.ts, the header lines after them.
import { latin1Decode, type RequestHeaders, type ResponseHeaders, tokenByte } from "@tsproxy/sdk";
import { PARSE } from "./error.ts";
import { parseFields, valueByte } from "./fields.ts";
import { parseBlock } from "./known-blocks.ts";

const CR = 13;
const LF = 10;
const SP = 32;

const DOT = 46;
const VERSION = Uint8Array.from("HTTP/", (char) => char.charCodeAt(0));

/** The methods that Envoy's parser knows; others need `allowCustomMethods`. */
const METHODS = new Set(
  `ACL BIND CHECKOUT CONNECT COPY DELETE GET HEAD LINK LOCK MERGE MKACTIVITY MKCALENDAR MKCOL MOVE M-SEARCH NOTIFY OPTIONS
   PATCH POST PROPFIND PROPPATCH PURGE PUT REBIND REPORT SEARCH SOURCE SUBSCRIBE TRACE UNBIND UNLINK UNLOCK UNSUBSCRIBE`.split(
    /\s+/,
  ),
);
const MAX_METHOD = 64;

/**
 * Parses a request head at `headers.base`, or continues one that was incomplete: `headers.blockEnd` is then the size of the
 * lines already parsed. Returns the offset after the head, or a PARSE code.
 */
export function parseRequestHead(
  headers: RequestHeaders,
  end: number,
  maxHeaders: number,
  customMethods: boolean,
): number {
  let q = headers.base + headers.blockEnd;
  if (headers.blockEnd === 0) {
    q = parseRequestLine(headers, end, customMethods);
    if (q <= 0) return q;
    headers.blockEnd = q - headers.base;
    return parseBlock(headers, q, end, maxHeaders);
  }
  return parseFields(headers, q, end, maxHeaders, true);
}

function parseRequestLine(headers: RequestHeaders, end: number, customMethods: boolean): number {
  const memory = headers.memory;
  const base = headers.base;
  let q = base;
  while (q < end && tokenByte[memory[q]!] !== 0) q++;
  if (q === end) return q - base > MAX_METHOD ? PARSE.MALFORMED : PARSE.INCOMPLETE;
  if (memory[q] !== SP || !isMethod(memory, base, q, customMethods)) return PARSE.MALFORMED;
  headers.methodAt = 0;
  headers.methodEnd = q - base;
  const pathAt = ++q;
  while (q < end && memory[q]! > 32 && memory[q]! < 127) q++;
  if (q === end) return PARSE.INCOMPLETE;
  if (q === pathAt) return PARSE.MALFORMED;
  headers.pathAt = pathAt - base;
  headers.pathEnd = q - base;
  if (memory[q] !== SP) return parseLineWithoutVersion(memory, q, end);
  q = parseVersion(memory, q + 1, end);
  return q <= 0 ? q : parseLineEnd(memory, q, end);
}

/** HTTP/0.9: its requests have no header lines to wait for, and are refused at once, as in Envoy. */
function parseLineWithoutVersion(memory: Uint8Array, at: number, end: number): number {
  const next = parseLineEnd(memory, at, end);
  return next > 0 ? PARSE.LOW_VERSION : next;
}

/** Parses `HTTP/d.d` (RFC 9112 §2.3); returns the offset after it or a PARSE code. */
function parseVersion(memory: Uint8Array, at: number, end: number): number {
  let q = at;
  for (let k = 0; k < 5; k++, q++) {
    if (q === end) return PARSE.INCOMPLETE;
    if (memory[q] !== VERSION[k]) return PARSE.MALFORMED;
  }
  if (end - q < 3) return PARSE.INCOMPLETE;
  const major = memory[q]! - 48;
  const minor = memory[q + 2]! - 48;
  if (major < 0 || major > 9 || memory[q + 1] !== DOT || minor < 0 || minor > 9)
    return PARSE.MALFORMED;
  return q + 3;
}

/** Parses CRLF or a bare LF, never a bare CR (RFC 9112 §2.2); returns the offset after it or a PARSE code. */
function parseLineEnd(memory: Uint8Array, at: number, end: number): number {
  if (at === end) return PARSE.INCOMPLETE;
  if (memory[at] === LF) return at + 1;
  if (memory[at] !== CR) return PARSE.MALFORMED;
  if (at + 1 === end) return PARSE.INCOMPLETE;
  return memory[at + 1] === LF ? at + 2 : PARSE.MALFORMED;
}

function isMethod(memory: Uint8Array, at: number, end: number, custom: boolean): boolean {
  const size = end - at;
  if (size === 3 && memory[at] === 71 && memory[at + 1] === 69 && memory[at + 2] === 84)
    return true;
  if (size === 0 || size > MAX_METHOD) return false;
  return custom || METHODS.has(latin1Decode(memory, at, end));
}

/** The minor HTTP version, 0 or 1, of a head whose request line is valid; -1: it names a version that is not spoken here. */
export function minorVersion({ memory, base, pathEnd }: RequestHeaders): number {
  return minorAt(memory, base + pathEnd + 1);
}

/** The minor version, 0 or 1, of `HTTP/1.d`; -1 for other digits. */
function minorAt(memory: Uint8Array, at: number): number {
  const minor = memory[at + 7]! - 48;
  return memory[at + 5] === 49 && minor < 2 ? minor : -1;
}

/** Parses a response head; parameters and results as of `parseRequestHead`. */
export function parseResponseHead(
  headers: ResponseHeaders,
  end: number,
  maxHeaders: number,
): number {
  let q = headers.base + headers.blockEnd;
  if (headers.blockEnd === 0) {
    q = parseStatusLine(headers, end);
    if (q <= 0) return q;
    headers.blockEnd = q - headers.base;
    return parseBlock(headers, q, end, maxHeaders);
  }
  return parseFields(headers, q, end, maxHeaders, true);
}

/** Parses a status line (RFC 9112 §4). The space before an empty reason may be missing, as many servers omit it. */
function parseStatusLine(headers: ResponseHeaders, end: number): number {
  const memory = headers.memory;
  let q = parseVersion(memory, headers.base, end);
  if (q <= 0) return q;
  if (minorAt(memory, headers.base) < 0) return PARSE.MALFORMED;
  if (q === end) return PARSE.INCOMPLETE;
  if (memory[q++] !== SP) return PARSE.MALFORMED;
  let status = 0;
  for (let k = 0; k < 3; k++, q++) {
    if (q === end) return PARSE.INCOMPLETE;
    const digit = memory[q]! - 48;
    if (digit < 0 || digit > 9) return PARSE.MALFORMED;
    status = status * 10 + digit;
  }
  if (status < 100) return PARSE.MALFORMED;
  headers.status = status;
  if (q < end && memory[q] === SP) while (q < end && valueByte[memory[q]!] === 1) q++;
  return parseLineEnd(memory, q, end);
}

/** The minor HTTP version, 0 or 1, of a head whose status line is valid. */
export function responseMinorVersion(headers: ResponseHeaders): number {
  return headers.memory[headers.base + 7]! - 48;
}
