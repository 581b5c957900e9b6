import { FLAG, headerName, isIp, latin1Decode, type RequestHeaders, SPAN } from "@tsproxy/sdk";
import { PARSE } from "./error.ts";

const HOST = headerName("host");
const SLASH = 47;
const COLON = 58;
const QUESTION = 63;
const AT = 64;
const BRACKET = 91;
const ALPHANUMERIC = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

/** For each byte: 1 if Envoy takes it in the host of a target. That is less than a reg-name of RFC 3986 may hold. */
const hostByte = bytes(`${ALPHANUMERIC}-.`);

const schemeByte = bytes(`${ALPHANUMERIC}+-.`);

/** For each byte: 1 if Envoy takes it in user information. */
const userByte = bytes(`${ALPHANUMERIC}-_.!~*'()%;:&=+$,`);

/** For each byte: 1 if Envoy takes it in a Host line, or reads on in a target, whatever the order. */
const hostLineByte = bytes(`${ALPHANUMERIC}!$&'()*+,;=-._~%:@[]`);

function bytes(chars: string): Uint8Array {
  const set = new Uint8Array(256);
  for (const char of chars) set[char.charCodeAt(0)] = 1;
  return set;
}

/** Whether a Host line may have this value. What it names is up to the route table, as in Envoy. */
export function isHost(memory: Uint8Array, at: number, end: number): boolean {
  for (let k = at; k < end; k++) if (hostLineByte[memory[k]!] === 0) return false;
  return true;
}

/**
 * Parses a request target in one of its four forms (RFC 9112 §3.2). The authority of the absolute form, or of CONNECT,
 * replaces the Host value; the rest becomes the path. Returns 1 or a PARSE code.
 */
export function readTarget(
  headers: RequestHeaders,
  options: {
    readonly isConnect: boolean;
    readonly absoluteUrl: boolean;
    readonly refusesHttps: boolean;
  },
): number {
  const { memory, base } = headers;
  const at = base + headers.pathAt;
  const end = base + headers.pathEnd;
  if (options.isConnect) {
    headers.pathEnd = headers.pathAt;
    if (!isHost(memory, at, authorityEnd(memory, at, end))) return PARSE.MALFORMED;
    if (!isAuthority(memory, at, end, true)) return PARSE.INVALID_URL;
    putAuthority(headers, at, end);
    return 1;
  }
  if (memory[at] === SLASH) return 1;
  if (memory[at] === 42 && end === at + 1) {
    // As in Envoy, a target that is not read as a URL is left to the connection manager, which rejects it too.
    return isOptions(headers) || !options.absoluteUrl ? 1 : PARSE.INVALID_URL;
  }
  if (!hasScheme(memory, at, end)) return PARSE.MALFORMED;
  if (!options.absoluteUrl) return 1; // The connection manager rejects the path, which does not begin with a slash.
  const authorityAt = skipScheme(headers, at, end);
  if (authorityAt < 0) return PARSE.INVALID_SCHEME;
  const q = authorityEnd(memory, authorityAt, end);
  if (!isHost(memory, authorityAt, q)) return PARSE.MALFORMED;
  const hostAt = skipUser(memory, authorityAt, q);
  if (hostAt < 0 || !isAuthority(memory, hostAt, q, false)) return PARSE.INVALID_URL;
  if (options.refusesHttps && headers.scheme === "https") return PARSE.HTTPS_IN_PLAINTEXT;
  if (q === end) headers.path = "/";
  // A query without a path stays as it is, which the connection manager rejects.
  else headers.pathAt = q - base;
  putAuthority(headers, hostAt, q);
  return 1;
}

function isOptions(headers: RequestHeaders): boolean {
  return headers.methodEnd - headers.methodAt === 7 && headers.method === "OPTIONS";
}

/** True if the target begins with a scheme (RFC 3986 §3.1) and `://`. */
function hasScheme(memory: Uint8Array, at: number, end: number): boolean {
  let q = at;
  while (q < end && schemeByte[memory[q]!] === 1) q++;
  const first = memory[at]! | 32;
  return first >= 97 && first <= 122 && q + 3 <= end && latin1Decode(memory, q, q + 3) === "://";
}

/** Sets the scheme and returns the offset after `http://` or `https://`; -1 for another scheme. */
function skipScheme(headers: RequestHeaders, at: number, end: number): number {
  const prefix = latin1Decode(headers.memory, at, Math.min(end, at + 8)).toLowerCase();
  if (prefix.startsWith("http://")) {
    headers.scheme = "http";
    return at + 7;
  }
  if (prefix === "https://") {
    headers.scheme = "https";
    return at + 8;
  }
  return -1;
}

/**
 * Replaces the Host value with the target's authority, without a copy (RFC 9112 §3.2.2). As in Envoy, an authority does without
 * a Host line: clients that ask for a tunnel leave it out.
 */
function putAuthority(headers: RequestHeaders, at: number, end: number): void {
  const index = headers.find(HOST);
  if (index < 0) {
    headers.authority = latin1Decode(headers.memory, at, end);
    return;
  }
  const i = index * SPAN;
  const spans = headers.spans;
  spans[i + 2] = at - headers.base;
  spans[i + 3] = end - headers.base;
  spans[i + 5] = spans[i + 5]! | FLAG.IRREGULAR;
}

/** Returns the offset of the slash or question mark that ends the authority. */
function authorityEnd(memory: Uint8Array, at: number, end: number): number {
  let q = at;
  while (q < end && memory[q] !== SLASH && memory[q] !== QUESTION) q++;
  return q;
}

/** Returns the offset after user information and its `@`, which are dropped as in Envoy; -1 if they are malformed. */
function skipUser(memory: Uint8Array, at: number, end: number): number {
  const sign = memory.subarray(at, end).indexOf(AT);
  if (sign < 0) return at;
  for (let q = at; q < at + sign; q++) if (userByte[memory[q]!] === 0) return -1;
  return at + sign + 1;
}

/** True for `host [":" port]` as Envoy reads it: the host is a name of few characters, or an IP address in brackets. */
function isAuthority(memory: Uint8Array, at: number, end: number, portNeeded: boolean): boolean {
  let q = at;
  if (memory[at] === BRACKET) {
    q = memory.subarray(0, end).indexOf(93, at) + 1; // Past the closing bracket.
    if (q === 0 || !isIp(latin1Decode(memory, at + 1, q - 1))) return false;
  } else {
    while (q < end && hostByte[memory[q]!] === 1) q++;
    if (q === at) return false;
  }
  if (q === end) return !portNeeded;
  return memory[q] === COLON && isPort(memory, q + 1, end);
}

function isPort(memory: Uint8Array, at: number, end: number): boolean {
  let port = 0;
  for (let q = at; q < end; q++) {
    const digit = memory[q]! - 48;
    if (digit < 0 || digit > 9) return false;
    port = Math.min(port * 10 + digit, 65536);
  }
  return port < 65536 && end > at;
}
