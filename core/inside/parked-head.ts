// Hot path: every head that goes into a sandbox, and its edits on the way back (test/bench/sandbox.ts).
import {
  FLAG,
  type HeaderMap,
  headerName,
  isFinalStatus,
  knownId,
  latin1Decode,
  type Reply,
  RequestHeaders,
  ResponseHeaders,
  SPAN,
  tokenByte,
} from "@tsproxy/sdk";
import { type Door, recordSize } from "./parked.ts";
import { wrongAuthority, wrongMethod, wrongPath } from "./request-line.ts";
import {
  EDITS,
  FOLLOW,
  HEAD,
  HEAD_FLAG,
  RANGE_MAX,
  RECORD,
  RECORD_BLOCK_MAX,
  REPLY,
} from "./sandbox/layout.ts";

/** Texts sent with a head: JSON in ASCII, or "" for none. */
export interface HeadTexts {
  readonly routeConfig: string;
  readonly facts: string;
}
const NO_TEXTS: HeadTexts = { routeConfig: "", facts: "" };

/** Sends a head as one record (HEAD in sandbox/layout.ts). "full": no room now; "large": it fits no record. */
export function parkHead(
  door: Door,
  kind: number,
  flags: number,
  token: number,
  use: number,
  map: HeaderMap,
  texts: HeadTexts = NO_TEXTS,
): "sent" | "full" | "large" {
  const size = map.blockEnd;
  const lent = map.memory === door.lends && size <= RANGE_MAX;
  const { count, added, lines } = map;
  const pairs = added.length / 2;
  const total = count + pairs + lines.length;
  const request = map instanceof RequestHeaders ? map : undefined;
  let headFlags = 0;
  let strings = 0;
  let stringBytes = 0;
  let editBytes = 0;
  for (let k = 0; k < added.length; k++) editBytes += added[k]!.length;
  for (let k = 0; k < lines.length; k++) editBytes += lines[k]!.bytes.length;
  if (request !== undefined) {
    if (request.methodEdited) {
      headFlags |= HEAD_FLAG.METHOD;
      strings++;
      stringBytes += request.method.length;
    }
    if (request.pathEdited) {
      headFlags |= HEAD_FLAG.PATH;
      strings++;
      stringBytes += request.path.length;
    }
    if (request.scheme === "https") headFlags |= HEAD_FLAG.HTTPS;
  }
  if (texts.routeConfig !== "") {
    headFlags |= HEAD_FLAG.ROUTE_CONFIG;
    strings++;
    stringBytes += texts.routeConfig.length;
  }
  if (texts.facts !== "") {
    headFlags |= HEAD_FLAG.FACTS;
    strings++;
    stringBytes += texts.facts.length;
  }
  const payload = (HEAD.SPANS + total * SPAN + strings) * 4 + stringBytes + editBytes;
  const whole = recordSize(payload, lent ? 0 : size);
  if (whole > RECORD_BLOCK_MAX) return "large";
  const w = door.begin(whole, kind, flags, token, use);
  if (w < 0) return "full";
  const { words, memory } = door;
  const p = w + RECORD.PAYLOAD;
  words[w + RECORD.RANGE_SIZE] = size;
  if (lent) words[w + RECORD.RANGE_AT] = map.base;
  words[p + HEAD.COUNT] = count;
  words[p + HEAD.BYTES] = size;
  if (request !== undefined) {
    words[p + HEAD.METHOD_AT] = request.methodAt;
    words[p + HEAD.METHOD_END] = request.methodEnd;
    words[p + HEAD.PATH_AT] = request.pathAt;
    words[p + HEAD.PATH_END] = request.pathEnd;
  }
  words[p + HEAD.ADDED] = pairs;
  words[p + HEAD.LINES] = lines.length;
  words[p + HEAD.EDIT_BYTES] = editBytes;
  words[p + HEAD.FLAGS] = headFlags;
  words[p + HEAD.STATUS] = map instanceof ResponseHeaders ? map.status : 0;
  map.copySpans(door, p + HEAD.SPANS);
  let l = p + HEAD.SPANS + count * SPAN;
  let to = (p + HEAD.SPANS + total * SPAN + strings) * 4 + stringBytes;
  words[p + HEAD.PRESENT] =
    editBytes === 0 ? map.present : map.present | putEdits(map, words, memory, l, to, size);
  if (strings > 0) {
    l = p + HEAD.SPANS + total * SPAN;
    to -= stringBytes;
    const put = (text: string): void => {
      words[l++] = text.length;
      for (let k = 0; k < text.length; k++) memory[to++] = text.charCodeAt(k);
    };
    if ((headFlags & HEAD_FLAG.METHOD) !== 0) put(request!.method);
    if ((headFlags & HEAD_FLAG.PATH) !== 0) put(request!.path);
    if (texts.routeConfig !== "") put(texts.routeConfig);
    if (texts.facts !== "") put(texts.facts);
  }
  if (!lent && size > 0) map.copyBlock(door, w * 4 + whole - ((size + 7) & ~7));
  door.send(token, whole);
  return "sent";
}

/** Sends the head of the record before it to the next filter of the stream as well (RECORD_FLAG.FOLLOWS). False: no room. */
export function parkFollower(
  door: Door,
  kind: number,
  flags: number,
  token: number,
  use: number,
  routeConfig: string,
  facts: string,
): boolean {
  const size = recordSize(FOLLOW.STRINGS * 4 + routeConfig.length + facts.length, 0);
  const w = size > RECORD_BLOCK_MAX ? -1 : door.begin(size, kind, flags, token, use);
  if (w < 0) return false;
  const { words, memory } = door;
  const p = w + RECORD.PAYLOAD;
  words[p + FOLLOW.ROUTE_CONFIG] = routeConfig.length;
  words[p + FOLLOW.FACTS] = facts.length;
  let to = (p + FOLLOW.STRINGS) * 4;
  for (let k = 0; k < routeConfig.length; k++) memory[to++] = routeConfig.charCodeAt(k);
  for (let k = 0; k < facts.length; k++) memory[to++] = facts.charCodeAt(k);
  door.send(token, size);
  return true;
}

/**
 * Writes the header lines that earlier filters added: spans from word `l`, bytes from `to`. `offset` is where the sandbox will
 * put the first of these bytes, behind the head's own. Answers the bits of the known names among them.
 */
function putEdits(
  map: HeaderMap,
  words: Int32Array,
  memory: Uint8Array,
  l: number,
  to: number,
  offset: number,
): number {
  const { added, lines } = map;
  let present = 0;
  let at = offset;
  for (let k = 0; k < added.length; k += 2) {
    const name = headerName(added[k]!);
    const value = added[k + 1]!;
    const { bytes } = name;
    const n = bytes.length;
    const size = value.length;
    for (let j = 0; j < n; j++) memory[to + j] = bytes[j]!;
    to += n;
    for (let j = 0; j < size; j++) memory[to + j] = value.charCodeAt(j);
    to += size;
    words[l] = at;
    words[l + 1] = words[l + 2] = at + n;
    words[l + 3] = at += n + size;
    words[l + 4] = name.hash;
    words[l + 5] = name.known;
    l += SPAN;
    present |= 1 << name.known;
  }
  for (let k = 0; k < lines.length; k++) {
    const { name, bytes } = lines[k]!;
    const n = bytes.length;
    memory.set(bytes, to);
    to += n;
    const nameEnd = at + name.bytes.length;
    words[l] = at;
    words[l + 1] = nameEnd;
    words[l + 2] = nameEnd + 2;
    words[l + 3] = (at += n) - 2;
    words[l + 4] = name.hash;
    words[l + 5] = name.known;
    l += SPAN;
    present |= 1 << name.known;
  }
  return present;
}

// ---- answers from the sandbox, which are untrusted

const ADDED_MAX = 256;
const HOST = headerName("host");
const CONTENT_LENGTH = headerName("content-length");
const TE = headerName("te");
const known = (...names: string[]): number => {
  let bits = 0;
  for (const name of names) bits |= 1 << headerName(name).known;
  return bits;
};
/** Bits of known ids: framing and hop-by-hop fields are the codec's own. */
const NEVER_SET = known(
  "content-length",
  "transfer-encoding",
  "connection",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "upgrade",
);
const NEVER_REMOVED = known("transfer-encoding", "connection", "upgrade");

/** True for bytes of a field value (RFC 9110 §5.5). */
function isValue(memory: Uint8Array, at: number, end: number): boolean {
  for (let k = at; k < end; k++) {
    const c = memory[k]!;
    if ((c < 32 && c !== 9) || c === 127) return false;
  }
  return true;
}

/** The known id of a lower-case header name, 0 if it has none; -1: the bytes are not a lower-case token. */
function nameId(memory: Uint8Array, at: number, end: number): number {
  let hash = 0;
  for (let k = at; k < end; k++) {
    const c = memory[k]!;
    if (c === 0 || tokenByte[c] !== c) return -1;
    hash = (Math.imul(hash, 31) + c) | 0;
  }
  return end === at ? -1 : knownId(hash, memory, at, end);
}

/** A header line that has been checked and may be added. */
interface Line {
  readonly name: string;
  readonly value: string;
  /** Known id of the name; 0: none. */
  readonly id: number;
  readonly bytes: Uint8Array;
}
/** Cache of checked lines: filters mostly add the same lines, and comparing bytes is cheaper than checking and decoding them. */
const LINES = 64;
const LINE_BYTES_MAX = 128;
const lines: (Line | undefined)[] = new Array<Line | undefined>(LINES).fill(undefined);

/** Checks the line in [at, end). Undefined: HTTP cannot carry it, or a sandbox must not add it. `length`: see `applyEdits`. */
function lineAt(
  memory: Uint8Array,
  at: number,
  valueAt: number,
  end: number,
  length: number,
): Line | undefined {
  const size = end - at;
  const slot = (size * 31 + memory[valueAt - 1]! * 7 + memory[end - 1]!) & (LINES - 1);
  const before = lines[slot];
  if (before !== undefined && before.name.length === valueAt - at && before.bytes.length === size) {
    const { bytes } = before;
    let k = 0;
    while (k < size && bytes[k] === memory[at + k]) k++;
    if (k === size) return before;
  }
  const id = nameId(memory, at, valueAt);
  if (id < 0 || !isValue(memory, valueAt, end)) return undefined;
  const name = latin1Decode(memory, at, valueAt);
  const value = latin1Decode(memory, valueAt, end);
  const line = { name, value, id, bytes: memory.slice(at, end) };
  if (((1 << id) & NEVER_SET) !== 0) {
    // TE: trailers is what gRPC asks for (RFC 9110 §10.1.4).
    const isTrue =
      id === CONTENT_LENGTH.known
        ? value === String(length)
        : id === TE.known && value === "trailers";
    return isTrue ? line : undefined;
  }
  if (size <= LINE_BYTES_MAX) lines[slot] = line;
  return line;
}

/**
 * Applies the edits at byte `at` (EDITS in sandbox/layout.ts) to the map. `length`: size of the message's body if all of it is
 * held or there is none; -1: not known. Answers the offset behind the edits; -1: they are malformed. The map may be half edited
 * then, and the caller fails the stream.
 */
export function applyEdits(
  map: HeaderMap,
  words: Int32Array,
  memory: Uint8Array,
  at: number,
  end: number,
  length: number,
): number {
  if (at + EDITS.REST * 4 > end) return -1;
  const e = at >> 2;
  const drops = words[e + EDITS.DROPS]!;
  const removed = words[e + EDITS.REMOVED]!;
  const pairs = words[e + EDITS.ADDED]!;
  const methodSize = words[e + EDITS.METHOD]!;
  const pathSize = words[e + EDITS.PATH]!;
  const status = words[e + EDITS.STATUS]!;
  const old = map.added.length / 2 + map.lines.length;
  if (
    drops < 0 ||
    drops > map.count ||
    removed < 0 ||
    removed > old ||
    pairs < 0 ||
    pairs > ADDED_MAX
  )
    return -1;
  let w = e + EDITS.REST;
  let from = (w + drops + removed + pairs * 2) * 4;
  if (from > end) return -1;
  const hadHost = drops + removed > 0 && map instanceof RequestHeaders && map.has(HOST);
  for (let k = 0; k < drops; k++) {
    const index = words[w++]!;
    if (index < 0 || index >= map.count) return -1;
    if (((1 << (map.spans[index * SPAN + 5]! & FLAG.KNOWN)) & NEVER_REMOVED) !== 0) return -1;
    map.removeAt(index);
  }
  if (removed > 0 && !removeStrings(map, words, w, removed, old)) return -1;
  w += removed;
  if (methodSize >= 0) {
    if (!(map instanceof RequestHeaders) || from + methodSize > end) return -1;
    const method = latin1Decode(memory, from, from + methodSize);
    if (wrongMethod(method, map.method) !== undefined) return -1;
    map.method = method;
    from += methodSize;
  }
  if (pathSize >= 0) {
    if (!(map instanceof RequestHeaders) || from + pathSize > end) return -1;
    const path = latin1Decode(memory, from, from + pathSize);
    if (wrongPath(path) !== undefined) return -1;
    map.path = path;
    from += pathSize;
  }
  if (status !== 0 && !(map instanceof ResponseHeaders && setStatus(map, status, length)))
    return -1;
  let hostSet = false;
  for (let k = 0; k < pairs; k++) {
    const nameSize = words[w++]!;
    const valueSize = words[w++]!;
    if (nameSize <= 0 || valueSize < 0) return -1;
    const valueAt = from + nameSize;
    const valueEnd = valueAt + valueSize;
    if (nameSize > end || valueSize > end || valueEnd > end) return -1;
    const line = lineAt(memory, from, valueAt, valueEnd, length);
    if (line === undefined) return -1;
    // Two Content-Length lines allow smuggling (RFC 9112 §6.3).
    if (line.id === CONTENT_LENGTH.known && map.has(CONTENT_LENGTH)) return -1;
    if (line.id === HOST.known && map instanceof RequestHeaders) {
      // Two Host lines allow smuggling (RFC 9112 §3.2).
      if (hostSet || map.has(HOST) || wrongAuthority(line.value) !== undefined) return -1;
      hostSet = true;
    }
    map.added.push(line.name, line.value);
    from = valueEnd;
  }
  if (hadHost && !map.has(HOST)) return -1;
  return (from + 3) & ~3;
}

/** Removes lines that earlier filters added. The indices rise, and count `lines`, then `added`. False: an index is invalid. */
function removeStrings(
  map: HeaderMap,
  words: Int32Array,
  at: number,
  n: number,
  old: number,
): boolean {
  const lines = map.lines.length;
  let last = old;
  for (let k = n - 1; k >= 0; k--) {
    const index = words[at + k]!;
    if (index < 0 || index >= last) return false;
    last = index;
    if (index < lines) map.removeLine(index);
    else map.removeAdded((index - lines) * 2);
  }
  return true;
}

/**
 * 204 and 304 have no body (RFC 9112 §6.3): a response that gets such a status loses its body. One that has such a status gets
 * another only if `length`, the size of its body, is 0. False: the status is not allowed.
 */
function setStatus(map: ResponseHeaders, status: number, length: number): boolean {
  const bodiless = (s: number): boolean => s < 200 || s === 204 || s === 304;
  if (!isFinalStatus(status)) return false;
  if (bodiless(map.status) && !bodiless(status)) {
    if (length !== 0) return false;
    // The content-length of a 304 is that of the 200 response (RFC 9110 §8.6), not of this empty body.
    map.remove(CONTENT_LENGTH);
  }
  map.status = status;
  return true;
}

/** The local reply at byte `at` (REPLY in sandbox/layout.ts) with this status and body. Undefined: it is malformed. */
export function readReply(
  status: number,
  body: string | Uint8Array,
  words: Int32Array,
  memory: Uint8Array,
  at: number,
  end: number,
): Reply | undefined {
  if (!isFinalStatus(status) || at + REPLY.REST * 4 > end) return undefined;
  let w = at >> 2;
  const headerCount = words[w + REPLY.HEADERS]!;
  const flagCount = words[w + REPLY.FLAGS]!;
  const detailsSize = words[w + REPLY.DETAILS]!;
  const grpcStatus = words[w + REPLY.GRPC_STATUS]!;
  const typeSize = words[w + REPLY.TYPE]!;
  w += REPLY.REST;
  if (headerCount < 0 || headerCount > ADDED_MAX || flagCount < 0 || flagCount > 32)
    return undefined;
  let from = (w + headerCount * 2 + flagCount) * 4;
  const take = (size: number): string | undefined => {
    if (size < 0 || size > end || from + size > end || !isValue(memory, from, from + size))
      return undefined;
    const text = latin1Decode(memory, from, from + size);
    from += size;
    return text;
  };
  if (from > end) return undefined;
  const details = take(detailsSize);
  const contentType = typeSize < 0 ? "" : take(typeSize);
  if (details === undefined || contentType === undefined) return undefined;
  const flags: string[] = [];
  for (let k = 0; k < flagCount; k++) {
    const flag = take(words[w++]!);
    if (flag === undefined) return undefined;
    flags.push(flag);
  }
  const headers: [string, string][] = [];
  for (let k = 0; k < headerCount; k++) {
    const nameAt = from;
    const name = take(words[w++]!);
    const id = name === undefined ? -1 : nameId(memory, nameAt, from);
    const value = take(words[w++]!);
    if (name === undefined || value === undefined || id < 0 || ((1 << id) & NEVER_SET) !== 0)
      return undefined;
    headers.push([name, value]);
  }
  return {
    ...{ type: "reply", status, body, headers, flags, details },
    ...(grpcStatus >= 0 && { grpcStatus }),
    ...(typeSize >= 0 && { contentType }),
  };
}
