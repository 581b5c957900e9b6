// Hot path: test/bench/http1-codec.ts. Derives a message's framing, and whether the connection persists, from its headers.
import {
  type CodecOptions,
  FLAG,
  type HeaderMap,
  HeaderName,
  headerName,
  latin1Decode,
  latin1Encode,
  NAME_ID,
  type RequestHeaders,
  type RequestInfo,
  type ResponseHeaders,
  SPAN,
} from "@tsproxy/sdk";
import { type Http1Stats, PARSE } from "./error.ts";
import { minorVersion, responseMinorVersion } from "./head.ts";
import { isHost, readTarget } from "./target.ts";

const LAST_ID = NAME_ID.EXPECT;

/** Connection-specific headers, never forwarded (RFC 9110 §7.6.1), as bits of HeaderMap.present. `upgrade` has its own rules. */
export const HOP_BY_HOP =
  (1 << NAME_ID.CONNECTION) |
  (1 << NAME_ID.TRANSFER_ENCODING) |
  (1 << NAME_ID.KEEP_ALIVE) |
  (1 << NAME_ID.PROXY_CONNECTION);
/** Bits of all names that #readLines examines. */
const OF_INTEREST =
  HOP_BY_HOP |
  (1 << NAME_ID.HOST) |
  (1 << NAME_ID.CONTENT_LENGTH) |
  (1 << NAME_ID.TE) |
  (1 << NAME_ID.UPGRADE) |
  (1 << NAME_ID.EXPECT);
/** Fields for framing or routing, which are not allowed in trailers (RFC 9110 §6.5.1). */
export const NOT_IN_TRAILERS =
  HOP_BY_HOP |
  (1 << NAME_ID.HOST) |
  (1 << NAME_ID.CONTENT_LENGTH) |
  (1 << NAME_ID.TE) |
  (1 << NAME_ID.TRAILER) |
  (1 << NAME_ID.UPGRADE) |
  (1 << NAME_ID.EXPECT);

/** Bits for the options of a Connection header; NAMES: it names headers to be removed. */
const OPTION = { CLOSE: 1, KEEP_ALIVE: 2, UPGRADE: 4, NAMES: 8 } as const;
/** Connection options that do not name a header, and headers with their own rules. */
const OPTIONS: ReadonlyMap<string, number> = new Map([
  ["", 0],
  ["close", OPTION.CLOSE],
  ["keep-alive", OPTION.KEEP_ALIVE],
  ["upgrade", OPTION.UPGRADE],
  ["te", 0],
  ["proxy-connection", 0],
]);
/** Headers that Connection must not name: without them the message would end elsewhere or take another route. */
const NEVER_NAMED = new Set([
  "host",
  "content-length",
  "transfer-encoding",
  "trailer",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
]);
const MAX_NAMED = 16; // each costs a search through all headers
const MAX_CONNECTION_BYTES = 1024; // limits the cost of splitting the value into strings

/** Part of an h2c upgrade request, which is not forwarded. */
const HTTP2_SETTINGS = headerName("http2-settings");
const UPGRADE = headerName("upgrade");

/** Framing and connection options of one message; one instance per connection, overwritten by each head. */
export class Framing {
  minor = 1;
  keepAlive = true;
  chunked = false;
  /** -1 if there is no content-length. */
  contentLength = -1;
  /** The upgrade that a request asks for or a 101 agrees to, in lower case; "" if none. */
  upgrade = "";
  expectContinue = false;
  isHead = false;
  isConnect = false;
  #options = 0;
  #connections = 0;
  #hosts = 0;
  #hostAt = -1;
  #transferEncodings = 0;
  #upgradeAt = -1;
  #te = 0;

  /**
   * Examines a parsed request head and marks headers that are not forwarded as removed. `secure`: it came through TLS.
   * Returns 1 or a PARSE code.
   */
  readRequest(
    headers: RequestHeaders,
    options: CodecOptions,
    stats: Http1Stats,
    secure: boolean,
  ): number {
    const { memory, base } = headers;
    // Only an absolute target says it; the connection manager adds it to others once it has accepted the head.
    headers.scheme = "";
    this.minor = minorVersion(headers);
    this.isHead = isMethod(headers, HEAD);
    this.isConnect = isMethod(headers, CONNECT);
    if (options.headersWithUnderscores !== "ALLOW") {
      const verdict = checkUnderscores(headers, options.headersWithUnderscores, stats);
      if (verdict < 0) return verdict;
    }
    const verdict = this.#readLines(headers);
    if (verdict < 0) return verdict;
    // RFC 9112 §3.2: 400 for several Host lines (Envoy joins them into one value) and, below, for an invalid one.
    if (this.#hosts > 1) return PARSE.MALFORMED;
    if (this.#transferEncodings > 0) {
      // RFC 9112 §6.3: Content-Length beside Transfer-Encoding may be smuggling: it is refused or, if allowed, removed.
      const dropsLength = this.chunked && options.allowChunkedLength;
      if (this.contentLength >= 0 && !this.#dropLength(headers, dropsLength))
        return PARSE.LENGTH_BESIDE_CHUNKED;
      if (!this.chunked) return PARSE.INVALID_TRANSFER_ENCODING;
      if (this.isConnect) return PARSE.INVALID_TRANSFER_ENCODING;
    }
    if (this.isConnect && this.contentLength > 0) return PARSE.BODY_DISALLOWED;
    if (this.isConnect && this.contentLength === 0) this.#dropLength(headers, true);
    if (memory[base + headers.pathAt] !== 47 || this.isConnect) {
      const { isConnect } = this;
      const refusesHttps = !secure && options.refusesHttpsInPlaintext === true;
      const absoluteUrl = options.allowAbsoluteUrl;
      const code = readTarget(headers, { isConnect, absoluteUrl, refusesHttps });
      if (code < 0) return code;
    }
    // RFC 9110 §2.5: another version may mean the same bytes otherwise; Envoy serves it as HTTP/1.0 where it accepts that.
    if (this.minor < 0 || (this.minor === 0 && !options.acceptHttp10)) return PARSE.LOW_VERSION;
    // RFC 9112 §6.1: an HTTP/1.0 request with Transfer-Encoding has faulty framing.
    if (this.minor === 0 && this.chunked) return PARSE.TRANSFER_ENCODING_NOT_ALLOWED;
    // Last, as a target with an authority has replaced it by now.
    if (this.#hosts === 1 && !this.#isHostGood(headers)) return PARSE.INVALID_AUTHORITY;
    if (this.#hosts === 0 && this.minor === 0 && !this.isConnect)
      this.#addDefaultHost(headers, options);
    this.#settleUpgrade(headers, !this.isConnect, options.ignoresUpgrade);
    if (this.upgrade !== "") {
      // As in Envoy, all that follows the head is the tunnel's, and framed for no one; the upstream decides what it makes of it.
      this.chunked = false;
      this.contentLength = -1;
    }
    if (this.#te > 0) reduceTe(headers);
    return this.#removeNamed(headers, true);
  }

  /** As `readRequest` for a response head. `upgrade`: the request asked for one; `isTunnel`: a 2xx to CONNECT. */
  readResponse(headers: ResponseHeaders, upgrade: boolean, isTunnel: boolean): number {
    this.minor = responseMinorVersion(headers);
    const verdict = this.#readLines(headers);
    if (verdict < 0) return verdict;
    const { status } = headers;
    // RFC 9110 §9.3.6: a client ignores both fields in a 2xx answer to CONNECT.
    if (isTunnel) {
      this.#dropLength(headers, true);
      this.chunked = false;
    } else if (status < 200 || status === 204) {
      // RFC 9112 §6.1, RFC 9110 §8.6: neither field is allowed with these statuses; like Envoy, `content-length: 0` is ignored.
      if (this.#transferEncodings > 0) return PARSE.TRANSFER_ENCODING_NOT_ALLOWED;
      if (this.contentLength > 0) return PARSE.CONTENT_LENGTH_NOT_ALLOWED;
      if (this.contentLength === 0) this.#dropLength(headers, true);
    } else if (this.#transferEncodings > 0) {
      if (!this.chunked) return PARSE.INVALID_TRANSFER_ENCODING;
      if (this.minor === 0) return PARSE.TRANSFER_ENCODING_NOT_ALLOWED;
      if (this.contentLength >= 0) return PARSE.LENGTH_BESIDE_CHUNKED;
    }
    this.#settleUpgrade(headers, upgrade && status === 101);
    return this.#removeNamed(headers, false);
  }

  /** Collects what all header lines with a known name say. Returns 1 or a PARSE code. */
  #readLines(headers: HeaderMap): number {
    this.keepAlive = this.minor === 1;
    this.chunked = false;
    this.contentLength = -1;
    this.upgrade = "";
    this.expectContinue = false;
    this.#options = this.#connections = this.#hosts = this.#transferEncodings = this.#te = 0;
    this.#upgradeAt = -1;
    if ((headers.present & OF_INTEREST) === 0) return 1;
    const { memory, base, spans } = headers;
    const end = headers.count * SPAN;
    for (let i = 0; i < end; i += SPAN) {
      const flags = spans[i + 5]!;
      const id = flags & FLAG.KNOWN;
      if (id === 0 || id > LAST_ID) continue;
      const at = base + spans[i + 2]!;
      const valueEnd = base + spans[i + 3]!;
      switch (id) {
        case NAME_ID.HOST:
          if (++this.#hosts === 1) this.#hostAt = i;
          break;
        case NAME_ID.CONNECTION:
          spans[i + 5] = flags | FLAG.REMOVED;
          if (valueEnd - at > MAX_CONNECTION_BYTES) return PARSE.CONNECTION_REJECTED;
          this.#connections++;
          this.#options |= readConnection(memory, at, valueEnd);
          break;
        case NAME_ID.CONTENT_LENGTH: {
          // RFC 9112 §6.3 allows accepting repeated equal lengths; like Envoy, we refuse them.
          const length = this.contentLength >= 0 ? -1 : parseLength(memory, at, valueEnd);
          if (length < 0) return PARSE.MALFORMED;
          this.contentLength = length;
          break;
        }
        case NAME_ID.TRANSFER_ENCODING:
          spans[i + 5] = flags | FLAG.REMOVED;
          this.chunked = ++this.#transferEncodings === 1 && isText(memory, at, valueEnd, "chunked");
          break;
        case NAME_ID.PROXY_CONNECTION:
          // Not standard, but like Envoy we treat `Proxy-Connection: close` as `Connection: close`.
          if (valueEnd - at <= MAX_CONNECTION_BYTES)
            this.#options |= readConnection(memory, at, valueEnd) & OPTION.CLOSE;
          spans[i + 5] = flags | FLAG.REMOVED;
          break;
        case NAME_ID.KEEP_ALIVE:
          spans[i + 5] = flags | FLAG.REMOVED;
          break;
        case NAME_ID.TE:
          this.#te++;
          break;
        case NAME_ID.UPGRADE:
          spans[i + 5] = flags | FLAG.REMOVED;
          this.#upgradeAt = this.#upgradeAt === -1 ? i : -2;
          break;
        case NAME_ID.EXPECT:
          this.expectContinue = this.minor === 1 && isText(memory, at, valueEnd, "100-continue");
          break;
      }
    }
    if ((this.#options & OPTION.CLOSE) !== 0) this.keepAlive = false;
    else if ((this.#options & OPTION.KEEP_ALIVE) !== 0) this.keepAlive = true;
    return 1;
  }

  #isHostGood({ memory, base, spans }: HeaderMap): boolean {
    const i = this.#hostAt;
    return isHost(memory, base + spans[i + 2]!, base + spans[i + 3]!);
  }

  #dropLength(headers: HeaderMap, allowed: boolean): boolean {
    if (!allowed) return false;
    removeKnown(headers, NAME_ID.CONTENT_LENGTH);
    this.contentLength = -1;
    return true;
  }

  #addDefaultHost(headers: RequestHeaders, options: CodecOptions): void {
    if (options.defaultHostForHttp10 !== "" && headers.authority === undefined)
      headers.authority = options.defaultHostForHttp10;
  }

  /**
   * Sets `upgrade` if the head asks for one, which needs both Connection and Upgrade (RFC 9110 §7.8). As in Envoy, HTTP/1.0 may ask.
   * `possible` is false for CONNECT and for responses that agree to nothing. h2c is not supported (obsoleted by RFC 9113 §3.1).
   * `isIgnored`: returns true for protocols to remove from the list.
   */
  #settleUpgrade(
    headers: HeaderMap,
    possible: boolean,
    isIgnored?: (name: string) => boolean,
  ): void {
    const i = this.#upgradeAt;
    if (i < 0 || !possible || (this.#options & OPTION.UPGRADE) === 0) return;
    const { memory, base, spans } = headers;
    const asked = latin1Decode(memory, base + spans[i + 2]!, base + spans[i + 3]!);
    const taken = isIgnored === undefined ? asked : without(asked, isIgnored);
    const value = taken.toLowerCase();
    if (value === "h2c") headers.remove(HTTP2_SETTINGS);
    if (value === "" || value === "h2c") return;
    this.upgrade = value;
    if (taken === asked) spans[i + 5] = spans[i + 5]! & ~FLAG.REMOVED;
    else headers.set(UPGRADE, taken);
    this.#showConnection(headers);
  }

  /** Filters and logs see the Connection of an upgrade, as in Envoy; codecs write one of their own. */
  #showConnection({ spans }: HeaderMap): void {
    for (let k = 0, left = this.#connections; left > 0; k++) {
      const i = k * SPAN + 5;
      if ((spans[i]! & FLAG.KNOWN) !== NAME_ID.CONNECTION) continue;
      spans[i] = spans[i]! & ~FLAG.REMOVED;
      left--;
    }
  }

  /** Removes the headers that Connection names (RFC 9110 §7.6.1). `strict`: naming a NEVER_NAMED header is an error. */
  #removeNamed(headers: HeaderMap, strict: boolean): number {
    if ((this.#options & OPTION.NAMES) === 0) return 1;
    const { memory, base, spans } = headers;
    let named = 0;
    for (let k = 0, left = this.#connections; left > 0; k++) {
      const i = k * SPAN;
      if ((spans[i + 5]! & FLAG.KNOWN) !== NAME_ID.CONNECTION) continue;
      left--;
      const value = latin1Decode(memory, base + spans[i + 2]!, base + spans[i + 3]!);
      for (const part of value.toLowerCase().split(",")) {
        const name = part.trim();
        if (OPTIONS.has(name)) continue;
        if (name.startsWith(":") || NEVER_NAMED.has(name)) {
          // Some upstreams name Transfer-Encoding. The header is kept, as the message's framing depends on it.
          if (!strict) continue;
          return PARSE.CONNECTION_REJECTED;
        }
        if (++named > MAX_NAMED) return PARSE.CONNECTION_REJECTED;
        const header = new HeaderName(name);
        for (let at = headers.find(header); at >= 0; at = headers.find(header, at + 1))
          headers.removeAt(at);
      }
    }
    return 1;
  }
}

/** Removes ignored names from a comma-separated list. */
function without(list: string, isIgnored: (name: string) => boolean): string {
  const names = list.split(",").map((name) => name.trim());
  const left = names.filter((name) => !isIgnored(name));
  return left.length === names.length ? list : left.join(",");
}

export const GET = latin1Encode("GET");
export const HEAD = latin1Encode("HEAD");
export const CONNECT = latin1Encode("CONNECT");

/** Compares the method without creating a string; methods are case-sensitive (RFC 9110 §9.1). */
export function isMethod(headers: RequestHeaders, method: Uint8Array): boolean {
  if (headers.methodEdited) return headers.method === latin1Decode(method, 0, method.length);
  if (headers.methodEnd - headers.methodAt !== method.length) return false;
  const at = headers.base + headers.methodAt;
  for (let k = 0; k < method.length; k++) if (headers.memory[at + k] !== method[k]) return false;
  return true;
}

/** Copies the results of `readRequest` into the RequestInfo for RequestDecoder. */
export function fillInfo(info: RequestInfo, framing: Framing): void {
  info.protocol = framing.minor === 1 ? "HTTP/1.1" : "HTTP/1.0";
  info.isHead = framing.isHead;
  info.isConnect = framing.isConnect;
  info.upgrade = framing.upgrade;
  info.contentLength = framing.contentLength;
  info.expectContinue = framing.expectContinue;
}

const MAX_LENGTH_DIGITS = 19; // as many as fit into 64 bits

/** Parses a content-length: digits only (RFC 9110 §8.6); -1 if invalid or above the largest safe integer. */
export function parseLength(memory: Uint8Array, at: number, end: number): number {
  if (at === end || end - at > MAX_LENGTH_DIGITS) return -1;
  let length = 0;
  for (let k = at; k < end; k++) {
    const digit = memory[k]! - 48;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return length <= Number.MAX_SAFE_INTEGER ? length : -1;
}

/** Parses a Connection value into bits of OPTION. */
function readConnection(memory: Uint8Array, at: number, end: number): number {
  const size = end - at;
  if (size === 10 && isText(memory, at, end, "keep-alive")) return OPTION.KEEP_ALIVE;
  if (size === 5 && isText(memory, at, end, "close")) return OPTION.CLOSE;
  let options = 0;
  for (const part of latin1Decode(memory, at, end).toLowerCase().split(",")) {
    options |= OPTIONS.get(part.trim()) ?? OPTION.NAMES;
  }
  return options;
}

/** True if the bytes equal `text`, which is in lower case, ignoring case. */
function isText(memory: Uint8Array, at: number, end: number, text: string): boolean {
  if (end - at !== text.length) return false;
  for (let k = 0; k < text.length; k++) {
    const c = memory[at + k]!;
    if ((c >= 65 && c <= 90 ? c + 32 : c) !== text.charCodeAt(k)) return false;
  }
  return true;
}

function removeKnown(headers: HeaderMap, id: number): void {
  const spans = headers.spans;
  for (let i = 0; i < headers.count * SPAN; i += SPAN) {
    if ((spans[i + 5]! & FLAG.KNOWN) === id) spans[i + 5] = spans[i + 5]! | FLAG.REMOVED;
  }
}

/** Reduces TE, which is connection-specific, to `trailers`, which a proxy may pass on (RFC 9110 §10.1.4). */
function reduceTe(headers: HeaderMap): void {
  const { memory, base, spans } = headers;
  let trailers = false;
  for (let i = 0; i < headers.count * SPAN; i += SPAN) {
    if ((spans[i + 5]! & (FLAG.KNOWN | FLAG.REMOVED)) !== NAME_ID.TE) continue;
    const at = base + spans[i + 2]!;
    const end = base + spans[i + 3]!;
    // As in Envoy, one that asks for nothing passes.
    if (at === end) continue;
    if (!trailers && isText(memory, at, end, "trailers")) {
      trailers = true;
      continue;
    }
    spans[i + 5] = spans[i + 5]! | FLAG.REMOVED;
    const parts = latin1Decode(memory, at, end).toLowerCase().split(",");
    if (trailers || !parts.some((part) => part.trim() === "trailers")) continue;
    trailers = true;
    headers.append("te", "trailers");
  }
}

/** Rejects a request, or drops its headers, if names contain underscores. Returns 1 or a PARSE code. */
function checkUnderscores(
  headers: HeaderMap,
  action: "REJECT_REQUEST" | "DROP_HEADER",
  stats: Http1Stats,
): number {
  const { memory, base, spans } = headers;
  for (let k = 0; k < headers.count; k++) {
    const end = base + spans[k * SPAN + 1]!;
    let q = base + spans[k * SPAN]!;
    while (q < end && memory[q] !== 95) q++;
    if (q === end) continue;
    if (action === "REJECT_REQUEST") {
      stats.rejectedRequests.inc();
      return PARSE.UNDERSCORE;
    }
    stats.droppedHeaders.inc();
    headers.removeAt(k);
  }
  return 1;
}
