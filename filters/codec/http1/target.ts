import { FLAG, headerName, latin1Decode, type RequestHeaders, SPAN } from "@tsproxy/sdk";
import { PARSE } from "./error.ts";

const HOST = headerName("host");
const SLASH = 47;

/** For each byte: 1 if allowed in a host name (RFC 3986 §3.2.2, reg-name without percent-encoding). */
const hostByte = new Uint8Array(256);
for (const char of "!$&'()*+,;=-._~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
  hostByte[char.charCodeAt(0)] = 1;
}

/** For each byte: 1 if Envoy takes it in a Host line, whatever the order. User information counts as a part of the name. */
const hostLineByte = Uint8Array.from(hostByte);
for (const char of "%:@[]") hostLineByte[char.charCodeAt(0)] = 1;

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
    if (!isAuthority(memory, at, end, true)) return PARSE.INVALID_URL;
    putAuthority(headers, at, end);
    return 1;
  }
  if (memory[at] === SLASH) return 1;
  if (memory[at] === 42 && end === at + 1) {
    return isOptions(headers) ? 1 : PARSE.INVALID_URL;
  }
  if (!hasScheme(memory, at, end)) return PARSE.MALFORMED;
  if (!options.absoluteUrl) return 1; // The connection manager rejects the path, which does not begin with a slash.
  const authorityAt = skipScheme(headers, at, end);
  if (authorityAt < 0) return PARSE.INVALID_SCHEME;
  let q = authorityAt;
  while (q < end && memory[q] !== SLASH && memory[q] !== 63 && memory[q] !== 35) q++;
  if (q === authorityAt || !isAuthority(memory, authorityAt, q, false)) return PARSE.INVALID_URL;
  if (options.refusesHttps && headers.scheme === "https") return PARSE.HTTPS_IN_PLAINTEXT;
  if (q < end && memory[q] === SLASH) headers.pathAt = q - base;
  // RFC 9112 §3.2.4: the absolute form of `*` has neither path nor query.
  else if (q === end) headers.path = isOptions(headers) ? "*" : "/";
  else headers.path = `/${latin1Decode(memory, q, end)}`;
  putAuthority(headers, authorityAt, q);
  return 1;
}

function isOptions(headers: RequestHeaders): boolean {
  return headers.methodEnd - headers.methodAt === 7 && headers.method === "OPTIONS";
}

/** True if the target begins with letters and `://`, which Envoy's parser takes for the absolute form. */
function hasScheme(memory: Uint8Array, at: number, end: number): boolean {
  let q = at;
  while (q < end && (memory[q]! | 32) >= 97 && (memory[q]! | 32) <= 122) q++;
  return q > at && q + 3 < end && latin1Decode(memory, q, q + 3) === "://";
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

/**
 * True for `uri-host [":" port]` (RFC 9112 §3.2), without user information or path. An empty value is allowed unless
 * `portNeeded`.
 */
function isAuthority(memory: Uint8Array, at: number, end: number, portNeeded: boolean): boolean {
  let q = at;
  if (q < end && memory[q] === 91) {
    q = skipAddressLiteral(memory, q, end);
    if (q < 0) return false;
  } else {
    while (q < end) {
      if (hostByte[memory[q]!] === 1) q++;
      else if (memory[q] === 37 && isHex(memory[q + 1]) && isHex(memory[q + 2]) && q + 2 < end)
        q += 3;
      else break;
    }
    if (q === at && (q < end || portNeeded)) return false;
  }
  if (q === end) return !portNeeded;
  if (memory[q] !== 58) return false;
  const portAt = ++q;
  let port = 0;
  for (; q < end; q++) {
    const digit = memory[q]! - 48;
    if (digit < 0 || digit > 9) return false;
    port = Math.min(port * 10 + digit, 65536);
  }
  return port < 65536 && (q > portAt || !portNeeded);
}

/** Returns the offset after `[` IPv6 or IPvFuture `]` (RFC 3986 §3.2.2), or -1 if malformed. */
function skipAddressLiteral(memory: Uint8Array, at: number, end: number): number {
  let q = at + 1;
  while (q < end && (hostByte[memory[q]!] === 1 || memory[q] === 58)) q++;
  return q < end && memory[q] === 93 && q > at + 1 ? q + 1 : -1;
}

function isHex(byte: number | undefined): boolean {
  if (byte === undefined) return false;
  return (byte >= 48 && byte <= 57) || ((byte | 32) >= 97 && (byte | 32) <= 102);
}
