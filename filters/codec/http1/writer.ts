// Hot path: test/bench/http1-codec.ts. Received header lines are copied in long runs; lines added by filters follow.
import {
  copyBytes,
  FLAG,
  type HeaderLine,
  type HeaderMap,
  headerName,
  latin1Encode,
  NAME_ID,
  type Output,
  type RequestHeaders,
  SPAN,
  tokenByte,
} from "@tsproxy/sdk";
import { GET, parseLength } from "./framing.ts";
import { reasonPhrase } from "./reason.ts";

const CONNECTION = headerName("connection");
const UPGRADES = /^(?:keep-alive, ?)?upgrade$/i;
const CONTENT_LENGTH = headerName("content-length");
const REASON_MAX = 100;
/** Maximum bytes of a head beside HeaderMap.wireSize: its first line and the lines that the codec adds. */
export const HEAD_EXTRA = 256;

/** Header lines and chunk framing as bytes. */
export const LINE = {
  CLOSE: latin1Encode("connection: close\r\n"),
  KEEP_ALIVE: latin1Encode("connection: keep-alive\r\n"),
  UPGRADE: latin1Encode("connection: upgrade\r\n"),
  CHUNKED: latin1Encode("transfer-encoding: chunked\r\n"),
  NO_BODY: latin1Encode("content-length: 0\r\n"),
  HOST: latin1Encode("host: "),
  END: latin1Encode("\r\n"),
  LAST_CHUNK: latin1Encode("0\r\n\r\n"),
  LAST_CHUNK_SIZE: latin1Encode("0\r\n"),
} as const;
const REQUEST_TAIL = latin1Encode(" HTTP/1.1\r\n");

/** Cached status lines; index: minor version * 1000 + status. */
const statusLines: (Uint8Array | undefined)[] = new Array(2000).fill(undefined);

export function writeStatusLine(out: Output, minor: number, status: number): void {
  const index = minor * 1000 + status;
  let line = statusLines[index];
  if (line === undefined) {
    line = latin1Encode(`HTTP/1.${minor} ${status} ${reasonPhrase(status)}\r\n`);
    statusLines[index] = line;
  }
  writeBytes(out, line);
}

/** Writes a status line with a given reason phrase, cut to REASON_MAX so that the line fits into HEAD_EXTRA. */
export function writeReason(out: Output, minor: number, status: number, reason: string): void {
  writeText(out, `HTTP/1.${minor} ${status} ${reason.slice(0, REASON_MAX)}\r\n`);
}

export function writeBytes(out: Output, bytes: Uint8Array): void {
  const { memory } = out;
  let at = out.at;
  if (bytes.length > 32) memory.set(bytes, at);
  else for (let k = 0; k < bytes.length; k++) memory[at + k] = bytes[k]!;
  at += bytes.length;
  out.at = at;
}

export function writeText(out: Output, text: string): void {
  const { memory } = out;
  const at = out.at;
  for (let k = 0; k < text.length; k++) memory[at + k] = text.charCodeAt(k);
  out.at = at + text.length;
}

export function copySpan(out: Output, memory: Uint8Array, at: number, end: number): void {
  copyBytes(out.memory, out.at, memory, at, end - at);
  out.at += end - at;
}

export function writeHex(out: Output, value: number): void {
  writeText(out, value.toString(16));
}

/** Form of the request line; "": method and path as the stream has them. */
export type RequestForm = "" | "absolute" | "asGet" | "connect";

/**
 * Writes the request line and all header lines, without the final empty line; returns the size of the request line.
 * `skip`: bits of known names that are not written. `asGet`: for an extended CONNECT (RFC 8441), which is a GET with Upgrade
 * in HTTP/1.1.
 */
export function writeRequestHead(
  out: Output,
  headers: RequestHeaders,
  skip: number,
  form: RequestForm,
): number {
  if (form === "" && isLineReady(headers)) {
    writeRequestFields(out, headers, skip, 0);
    return headers.spans[0]!;
  }
  const from = out.at;
  if (form === "asGet") writeBytes(out, GET);
  else if (headers.methodEdited) writeToken(out, headers.method);
  else
    copySpan(
      out,
      headers.memory,
      headers.base + headers.methodAt,
      headers.base + headers.methodEnd,
    );
  out.memory[out.at++] = 32;
  if (form === "connect") writeTarget(out, headers.authority ?? "");
  else if (form === "absolute") writeTarget(out, absoluteUrl(headers));
  else writeTarget(out, headers.path);
  writeBytes(out, REQUEST_TAIL);
  const size = out.at - from;
  writeRequestFields(out, headers, skip, -1);
  return size;
}

/** As `writeFields`, with `host` as the first line wherever it stood, as in Envoy; most clients send it there. */
function writeRequestFields(
  out: Output,
  headers: RequestHeaders,
  skip: number,
  from: number,
): void {
  const host = isHostFirst(headers) ? undefined : headers.authority;
  if (host === undefined) {
    writeFields(out, headers, skip, from);
    return;
  }
  const { memory, base, spans } = headers;
  if (from >= 0) copySpan(out, memory, base + from, base + spans[0]!);
  writeBytes(out, LINE.HOST);
  writeText(out, host);
  writeBytes(out, LINE.END);
  writeFields(out, headers, skip | (1 << NAME_ID.HOST), -1);
}

function isHostFirst({ count, spans }: RequestHeaders): boolean {
  const flags = count === 0 ? 0 : spans[5]!;
  if ((flags & FLAG.KNOWN) !== NAME_ID.HOST) return false;
  return (flags & FLAG.REMOVED) === 0 || (flags & FLAG.REPLACED) !== 0;
}

/** Maximum bytes that `writeRequestHead` writes; percent-encoding may make a target three times as long. */
export function requestHeadSize(headers: RequestHeaders, form: RequestForm): number {
  const size = headers.wireSize + HEAD_EXTRA;
  const method = headers.methodEdited ? headers.method.length : headers.methodEnd;
  if (form === "connect") return size + method + 3 * (headers.authority ?? "").length;
  if (form === "absolute") return size + method + 3 * absoluteUrl(headers).length;
  const path = headers.pathEdited ? headers.path.length : headers.pathEnd - headers.pathAt;
  return size + method + 3 * path;
}

/** The absolute form of the target (RFC 9112 §3.2.2); that of `*` has no path (§3.2.4). */
function absoluteUrl({ scheme, authority = "", path }: RequestHeaders): string {
  return `${scheme}://${authority}${path === "*" ? "" : path}`;
}

/** True if the received request line can be sent unchanged, in one copy with the header lines that follow it. */
function isLineReady(headers: RequestHeaders): boolean {
  if (headers.methodEdited || headers.pathEdited || headers.methodAt !== 0) return false;
  const { memory, base, pathEnd } = headers;
  if (headers.count === 0 || headers.spans[0] !== pathEnd + REQUEST_TAIL.length) return false;
  if (headers.pathAt !== headers.methodEnd + 1 || memory[base + headers.methodEnd] !== 32)
    return false;
  for (let k = 0; k < REQUEST_TAIL.length; k++) {
    if (memory[base + pathEnd + k] !== REQUEST_TAIL[k]) return false;
  }
  return true;
}

/** Writes a target; characters not allowed there, such as white space (RFC 9112 §3.2), are percent-encoded. */
function writeTarget(out: Output, target: string): void {
  const { memory } = out;
  for (let k = 0; k < target.length; k++) {
    const c = target.charCodeAt(k);
    if (c > 32 && c < 127) memory[out.at++] = c;
    else writeText(out, `%${(c & 255).toString(16).toUpperCase().padStart(2, "0")}`);
  }
}

/** Writes an edited method without characters that are not token bytes, which would end it early. */
function writeToken(out: Output, text: string): void {
  for (let k = 0; k < text.length; k++) {
    const c = text.charCodeAt(k);
    if (c < 256 && tokenByte[c] !== 0) out.memory[out.at++] = c;
  }
}

/**
 * Writes header lines: the received ones, with adjacent unchanged lines as one copy, then the added ones. `skip`: bits of
 * known names that are not written. `from` ≥ 0: bytes from there to the first line are copied first; -1: none.
 */
export function writeFields(out: Output, headers: HeaderMap, skip: number, from: number): void {
  const { spans, memory, base } = headers;
  const last = headers.count * SPAN;
  let runAt = from;
  let runEnd = from >= 0 && last > 0 ? spans[0]! : runAt;
  for (let i = 0; i < last; i += SPAN) {
    const flags = spans[i + 5]!;
    if ((flags & FLAG.REMOVED) !== 0 || ((skip >>> (flags & FLAG.KNOWN)) & 1) !== 0) {
      if ((flags & FLAG.REPLACED) === 0) continue;
      if (runEnd > runAt) copySpan(out, memory, base + runAt, base + runEnd);
      runAt = runEnd = -1;
      const k = headers.replacementOf(i / SPAN);
      if (k >= 0) writeAdded(out, headers, k, skip);
      continue;
    }
    if ((flags & FLAG.IRREGULAR) === 0) {
      if (spans[i] !== runEnd) {
        if (runEnd > runAt) copySpan(out, memory, base + runAt, base + runEnd);
        runAt = spans[i]!;
      }
      runEnd = spans[i + 3]! + 2;
      continue;
    }
    if (runEnd > runAt) copySpan(out, memory, base + runAt, base + runEnd);
    runAt = runEnd = -1;
    copySpan(out, memory, base + spans[i]!, base + spans[i + 1]!);
    out.memory[out.at++] = 58;
    out.memory[out.at++] = 32;
    copySpan(out, memory, base + spans[i + 2]!, base + spans[i + 3]!);
    writeBytes(out, LINE.END);
  }
  if (runEnd > runAt) copySpan(out, memory, base + runAt, base + runEnd);
  const { added, lines, linesAt } = headers;
  let l = 0;
  for (let k = 0; k < added.length; k += 2) {
    for (; l < lines.length && linesAt[l]! <= k; l++) writeLine(out, lines[l]!, skip);
    if (!headers.isPlaced(k)) writeAdded(out, headers, k, skip);
  }
  for (; l < lines.length; l++) writeLine(out, lines[l]!, skip);
}

function writeLine(out: Output, line: HeaderLine, skip: number): void {
  if (((skip >>> line.name.known) & 1) === 0) writeBytes(out, line.bytes);
}

/** Writes the added header whose name and value are at `k` and `k + 1` of `added`. */
function writeAdded(out: Output, { added }: HeaderMap, k: number, skip: number): void {
  if (skip !== 0 && ((skip >>> framingId(added[k]!)) & 1) !== 0) return;
  writeText(out, added[k]!);
  out.memory[out.at++] = 58;
  out.memory[out.at++] = 32;
  writeText(out, added[k + 1]!);
  writeBytes(out, LINE.END);
}

/** The known id of a header that affects framing or is connection-specific, else 0. */
function framingId(name: string): number {
  switch (name) {
    case "connection":
      return NAME_ID.CONNECTION;
    case "content-length":
      return NAME_ID.CONTENT_LENGTH;
    case "transfer-encoding":
      return NAME_ID.TRANSFER_ENCODING;
    case "keep-alive":
      return NAME_ID.KEEP_ALIVE;
    case "proxy-connection":
      return NAME_ID.PROXY_CONNECTION;
    case "upgrade":
      return NAME_ID.UPGRADE;
    case "host":
      return NAME_ID.HOST;
    case "te":
      return NAME_ID.TE;
    case "trailer":
      return NAME_ID.TRAILER;
    case "expect":
      return NAME_ID.EXPECT;
    default:
      return 0;
  }
}

/** The bit of `connection` if the one line of that name may stand where it is: it says no more than an upgrade does. Else 0. */
export function upgradeLineBit(headers: HeaderMap): number {
  const values = headers.getAll(CONNECTION);
  return values.length === 1 && UPGRADES.test(values[0]!) ? 1 << NAME_ID.CONNECTION : 0;
}

/** The content-length of a head, edits included; -1 if there is none, -2 if it is invalid or there are several. */
export function lengthOf(headers: HeaderMap): number {
  let length = -1;
  const at = headers.find(CONTENT_LENGTH);
  if (at >= 0) {
    if (headers.find(CONTENT_LENGTH, at + 1) >= 0) return -2;
    const i = at * SPAN;
    const { spans, base } = headers;
    length = parseLength(headers.memory, base + spans[i + 2]!, base + spans[i + 3]!);
    if (length < 0) return -2;
  }
  const { added, lines } = headers;
  for (let k = 0; k < added.length; k += 2) {
    if (added[k] !== "content-length") continue;
    if (length !== -1 || !/^\d{1,15}$/.test(added[k + 1]!)) return -2;
    length = Number(added[k + 1]);
  }
  for (let k = 0; k < lines.length; k++) {
    const line = lines[k]!;
    if (line.name.known !== NAME_ID.CONTENT_LENGTH) continue;
    if (length !== -1 || !/^\d{1,15}$/.test(line.value)) return -2;
    length = Number(line.value);
  }
  return length;
}
