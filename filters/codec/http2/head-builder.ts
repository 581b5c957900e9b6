// Hot path: builds every received head, in a layout that the HTTP/1 codec can forward as one copy.
import {
  FLAG,
  type HeaderMap,
  headerName,
  latin1Decode,
  latin1Encode,
  NAME_ID,
  RequestHeaders,
  type ResponseHeaders,
  SPAN,
  tokenByte,
} from "@tsproxy/sdk";
import type { HeadArena } from "./head-arena.ts";
import { META, PSEUDO } from "./static-table.ts";

const LAST_ID = NAME_ID.EXPECT;
const COOKIE = headerName("cookie");

export const KIND = { REQUEST: 0, RESPONSE: 1, TRAILERS: 2 } as const;
export type Kind = (typeof KIND)[keyof typeof KIND];

/** What is wrong with a head. */
export const FAULT = {
  NONE: 0,
  /** It breaks RFC 9113 §8.1-8.3. */
  MALFORMED: 1,
  TOO_LARGE: 2,
  TOO_MANY: 3,
  /** A field that is not allowed, or not with this value. */
  BAD_FIELD: 4,
} as const;

export interface HeadLimits {
  readonly maxHeadBytes: number;
  readonly maxHeaders: number;
}

const VERSION_LINE = latin1Encode(" HTTP/1.1\r\n");
const HOST_LINE = latin1Encode("host: ");
const UPGRADE_LINE = latin1Encode("upgrade: ");
const CONNECTION_LINE = latin1Encode("connection: upgrade\r\n");
const COOKIE_LINE = latin1Encode("cookie: ");
const GET = latin1Encode("GET");
const HOST_HASH = headerName("host").hash;
const UPGRADE_HASH = headerName("upgrade").hash;
const CONNECTION_HASH = headerName("connection").hash;

const ALPHANUMERIC = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
/** 1 for bytes of an authority: reg-name, IP literal, port (RFC 3986 §3.2), without user information (RFC 9113 §8.3.1). */
const authorityByte = bytesOf(`!$&'()*+,;=-._~%[]:${ALPHANUMERIC}`);
/** 1 for bytes of a scheme (RFC 3986 §3.1). */
const schemeByte = bytesOf(`+-.${ALPHANUMERIC}`);

/**
 * Fills a HeaderMap from the fields of one header block. Layout of a head in the arena:
 *
 *   [pseudo fields as received] [GET /path HTTP/1.1 CRLF, host: authority CRLF] [name: value CRLF …]
 *                               ^ base of the HeaderMap; this part only for requests
 *
 * so that both codecs can forward it like a head received over HTTP/1. A connection has one builder for all its heads.
 */
export class HeadBuilder {
  fault: number = FAULT.NONE;
  isHead = false;
  isConnect = false;
  /** `:protocol` of an extended CONNECT (RFC 8441) in lower case; "" if there is none. */
  protocol = "";
  /** -1 if there is no content-length. */
  contentLength = -1;
  expectContinue = false;
  readonly #arena: HeadArena;
  readonly #limits: HeadLimits;
  #kind: Kind = KIND.REQUEST;
  #headers: HeaderMap = new RequestHeaders();
  /** Offset of the head in the arena; the other offsets are relative to it. */
  #start = 0;
  /** Offset of the HeaderMap's lines; -1 while only pseudo fields have been added. */
  #linesAt = -1;
  /** Range of each pseudo field's value, by PSEUDO id; end -1: not received. */
  readonly #pseudoAt = new Int32Array(8);
  readonly #pseudoEnd = new Int32Array(8);
  #pseudoOrder = 0;
  #size = 0;
  #fields = 0;
  #cookies = 0;
  #hosts = 0;
  #underscores = false;

  constructor(arena: HeadArena, limits: HeadLimits) {
    this.#arena = arena;
    this.#limits = limits;
  }

  get memory(): Uint8Array {
    return this.#arena.memory;
  }

  begin(kind: Kind, headers: HeaderMap): void {
    this.#arena.begin();
    headers.reset();
    this.fault = FAULT.NONE;
    this.isHead = this.isConnect = this.expectContinue = false;
    this.protocol = "";
    this.contentLength = -1;
    this.#kind = kind;
    this.#headers = headers;
    this.#start = this.#arena.at;
    this.#linesAt = kind === KIND.TRAILERS ? 0 : -1;
    this.#pseudoEnd.fill(-1);
    this.#size = this.#fields = this.#cookies = this.#hosts = this.#pseudoOrder = 0;
    this.#underscores = false;
  }

  /** Bytes of names and values, pseudo fields too. */
  get size(): number {
    return this.#size;
  }

  /** True if a field name has an underscore. */
  get hasUnderscores(): boolean {
    return this.#underscores;
  }

  // ---- for HpackDecoder: it opens a line, writes it at the returned offset, and adds it

  /** Makes room for a line of at most `size` bytes and returns its offset. `meta`: META of its name. */
  open(meta: number, size: number): number {
    if (this.#linesAt < 0 && (meta & META.PSEUDO) === 0) this.#openLines();
    this.#grow(size);
    return this.#arena.at;
  }

  /** As `open` for a name not decoded yet; leaves a gap for the request line, which precedes the first regular field. */
  openUnknown(size: number): number {
    const gap = this.#linesAt < 0 ? this.#frontSize() : 0;
    this.#grow(size + gap);
    return this.#arena.at + gap;
  }

  /** Continues `openUnknown` when the name has been decoded to `to`. */
  openKnown(meta: number, to: number): void {
    if (this.#linesAt < 0 && (meta & META.PSEUDO) === 0) this.#openLines();
    this.#arena.at = to;
  }

  add(at: number, nameSize: number, valueSize: number, hash: number, meta: number): void {
    this.#size += nameSize + valueSize;
    if (this.#size > this.#limits.maxHeadBytes) {
      // The block is still decoded to update the dynamic table; each line overwrites the one before.
      this.fault = FAULT.TOO_LARGE;
      return;
    }
    if ((meta & (META.MALFORMED_NAME | META.MALFORMED_VALUE)) !== 0) {
      this.#refuse(FAULT.BAD_FIELD);
      return;
    }
    // As in Envoy, pseudo fields count.
    if (++this.#fields > this.#limits.maxHeaders) {
      if (this.fault === FAULT.NONE) this.fault = FAULT.TOO_MANY;
      return;
    }
    const nameAt = at - this.#start;
    const valueAt = nameAt + nameSize + 2;
    if ((meta & META.PSEUDO) !== 0) {
      this.#addPseudo((meta & META.PSEUDO) >> META.PSEUDO_SHIFT, valueAt, valueAt + valueSize);
      this.#arena.at = at + nameSize + valueSize + 4;
      return;
    }
    const headers = this.#headers;
    const id = meta & META.KNOWN;
    if (id !== 0 && id <= LAST_ID && !this.#addKnown(id, at + nameSize + 2, valueSize)) return;
    if (id === 0) this.#addUnknown(at, nameSize, hash);
    const from = this.#linesAt;
    headers.addSpan(
      nameAt - from,
      nameAt - from + nameSize,
      valueAt - from,
      valueAt - from + valueSize,
      hash,
      id,
    );
    this.#arena.at = at + nameSize + valueSize + 4;
  }

  #refuse(fault: number = FAULT.MALFORMED): void {
    if (this.fault === FAULT.NONE) this.fault = fault;
  }

  #grow(size: number): void {
    this.#start = this.#arena.grow(this.#start, size + 64);
  }

  #addPseudo(id: number, at: number, end: number): void {
    const allowed =
      this.#kind === KIND.REQUEST
        ? id !== PSEUDO.STATUS && id !== PSEUDO.UNKNOWN
        : this.#kind === KIND.RESPONSE && id === PSEUDO.STATUS;
    // RFC 9113 §8.3: pseudo fields precede all regular fields, and each occurs once. Empty values are refused.
    if (!allowed || this.#linesAt >= 0 || this.#pseudoEnd[id]! >= 0 || at === end) {
      this.#refuse(FAULT.BAD_FIELD);
      return;
    }
    this.#pseudoAt[id] = at;
    this.#pseudoEnd[id] = end;
    this.#pseudoOrder = (this.#pseudoOrder << 3) | id;
  }

  /** Checks a field that has rules of its own; returns false if it is not added. */
  #addKnown(id: number, at: number, size: number): boolean {
    const { memory } = this.#arena;
    switch (id) {
      case NAME_ID.HOST:
        // RFC 9113 §8.3.1: `:authority` replaces Host.
        if (this.#kind !== KIND.REQUEST) return this.#kind === KIND.RESPONSE;
        if (++this.#hosts > 1 || !isAuthority(memory, at, at + size)) this.#refuse(FAULT.BAD_FIELD);
        return this.#pseudoEnd[PSEUDO.AUTHORITY]! < 0;
      case NAME_ID.CONTENT_LENGTH: {
        if (this.#kind === KIND.TRAILERS) return false;
        const length = parseLength(memory, at, at + size);
        if (length < 0 || this.contentLength >= 0) {
          this.#refuse(FAULT.BAD_FIELD);
          return false;
        }
        this.contentLength = length;
        return true;
      }
      case NAME_ID.TE:
        // RFC 9113 §8.2.2: no value but `trailers`.
        if (this.#kind === KIND.TRAILERS) return false;
        if (latin1Decode(memory, at, at + size).toLowerCase() !== "trailers")
          this.#refuse(FAULT.BAD_FIELD);
        return true;
      case NAME_ID.EXPECT:
        if (size === 12 && latin1Decode(memory, at, at + size).toLowerCase() === "100-continue")
          this.expectContinue = true;
        return true;
      case NAME_ID.TRAILER:
        return true;
      default:
        // RFC 9113 §8.2.2: connection-specific fields make a message malformed.
        this.#refuse(FAULT.BAD_FIELD);
        return false;
    }
  }

  #addUnknown(at: number, nameSize: number, hash: number): void {
    if (hash === COOKIE.hash && nameSize === 6) this.#cookies++;
    const { memory } = this.#arena;
    for (let k = at; k < at + nameSize; k++) {
      if (memory[k] === 95) {
        this.#underscores = true;
        return;
      }
    }
  }

  // ---- request line and host

  #sizeOf(id: number): number {
    const end = this.#pseudoEnd[id]!;
    return end < 0 ? 0 : end - this.#pseudoAt[id]!;
  }

  /** Maximum size of the request line, host and upgrade lines; 0 for a response. */
  #frontSize(): number {
    if (this.#kind !== KIND.REQUEST) return 0;
    return (
      64 +
      this.#sizeOf(PSEUDO.METHOD) +
      this.#sizeOf(PSEUDO.PATH) +
      this.#sizeOf(PSEUDO.AUTHORITY) +
      this.#sizeOf(PSEUDO.PROTOCOL)
    );
  }

  /** Begins the lines, for a request with its request line; called when all pseudo fields have been added. */
  #openLines(): void {
    const arena = this.#arena;
    if (this.#kind === KIND.REQUEST) this.#grow(this.#frontSize());
    this.#linesAt = arena.at - this.#start;
    if (this.#kind === KIND.REQUEST) this.#writeFront(this.#headers as RequestHeaders);
  }

  #writeFront(headers: RequestHeaders): void {
    const start = this.#linesAt;
    headers.pseudoOrder = this.#pseudoOrder;
    const upgrade = this.#pseudoEnd[PSEUDO.PROTOCOL]! >= 0;
    if (upgrade) this.#put(GET);
    else this.#putPseudo(PSEUDO.METHOD);
    headers.methodEnd = this.#here - start;
    this.memory[this.#arena.at++] = 32;
    headers.pathAt = this.#here - start;
    this.#putPseudo(PSEUDO.PATH);
    headers.pathEnd = this.#here - start;
    this.#put(VERSION_LINE);
    if (this.#pseudoEnd[PSEUDO.AUTHORITY]! >= 0)
      this.#putLine(HOST_LINE, PSEUDO.AUTHORITY, HOST_HASH, NAME_ID.HOST);
    if (upgrade) {
      this.#putLine(UPGRADE_LINE, PSEUDO.PROTOCOL, UPGRADE_HASH, NAME_ID.UPGRADE);
      this.#putConnection();
    }
  }

  /** As in Envoy, filters and logs see what an upgrade of HTTP/1.1 has beside its protocol. */
  #putConnection(): void {
    const nameAt = this.#here - this.#linesAt;
    const valueAt = nameAt + "connection: ".length;
    this.#put(CONNECTION_LINE);
    const valueEnd = this.#here - this.#linesAt - 2;
    const { CONNECTION } = NAME_ID;
    this.#headers.addSpan(nameAt, valueAt - 2, valueAt, valueEnd, CONNECTION_HASH, CONNECTION);
  }

  get #here(): number {
    return this.#arena.at - this.#start;
  }

  #put(bytes: Uint8Array): void {
    const { memory } = this.#arena;
    let { at } = this.#arena;
    for (let k = 0; k < bytes.length; k++) memory[at++] = bytes[k]!;
    this.#arena.at = at;
  }

  #putPseudo(id: number): void {
    const { memory } = this.#arena;
    let { at } = this.#arena;
    const end = this.#start + this.#pseudoEnd[id]!;
    for (let k = this.#start + this.#pseudoAt[id]!; k < end; k++) memory[at++] = memory[k]!;
    this.#arena.at = at;
  }

  #putLine(name: Uint8Array, pseudo: number, hash: number, id: number): void {
    const nameAt = this.#here - this.#linesAt;
    this.#put(name);
    const valueAt = this.#here - this.#linesAt;
    this.#putPseudo(pseudo);
    const valueEnd = this.#here - this.#linesAt;
    this.#put(CRLF);
    this.#headers.addSpan(nameAt, valueAt - 2, valueAt, valueEnd, hash, id);
  }

  // ---- end of the block

  /** Checks the complete head and finishes the HeaderMap; returns `fault`. */
  finish(): number {
    if (this.#linesAt < 0) this.#openLines();
    if (this.fault === FAULT.NONE && this.#kind === KIND.REQUEST) this.#checkRequest();
    if (this.fault === FAULT.NONE && this.#kind === KIND.RESPONSE) this.#checkResponse();
    if (this.fault !== FAULT.NONE) return this.fault;
    const headers = this.#headers;
    headers.memory = this.memory;
    headers.base = this.#start + this.#linesAt;
    if (this.#cookies > 1) this.#joinCookies();
    headers.memory = this.memory;
    headers.base = this.#start + this.#linesAt;
    headers.blockEnd = this.#here - this.#linesAt;
    return FAULT.NONE;
  }

  /** Checks the pseudo fields of a request (RFC 9113 §8.3.1, §8.5; RFC 8441 §4). */
  #checkRequest(): void {
    const end = this.#pseudoEnd;
    const { memory } = this.#arena;
    const methodAt = this.#start + this.#pseudoAt[PSEUDO.METHOD]!;
    const methodEnd = this.#start + end[PSEUDO.METHOD]!;
    const size = methodEnd - methodAt;
    const hasMethod = end[PSEUDO.METHOD]! >= 0;
    if (hasMethod && !isToken(memory, methodAt, methodEnd)) this.#refuse(FAULT.BAD_FIELD);
    this.isHead = size === 4 && latin1Decode(memory, methodAt, methodEnd) === "HEAD";
    const isConnect = size === 7 && latin1Decode(memory, methodAt, methodEnd) === "CONNECT";
    const hasAuthority = end[PSEUDO.AUTHORITY]! >= 0;
    if (hasAuthority) {
      const at = this.#start + this.#pseudoAt[PSEUDO.AUTHORITY]!;
      if (!isAuthority(memory, at, this.#start + end[PSEUDO.AUTHORITY]!))
        this.#refuse(FAULT.BAD_FIELD);
    }
    if (end[PSEUDO.PROTOCOL]! >= 0) {
      const at = this.#start + this.#pseudoAt[PSEUDO.PROTOCOL]!;
      this.protocol = latin1Decode(memory, at, this.#start + end[PSEUDO.PROTOCOL]!).toLowerCase();
      if (!isConnect || !hasAuthority) this.#refuse();
    } else if (isConnect) {
      this.isConnect = true;
      if (!hasAuthority || end[PSEUDO.PATH]! >= 0 || end[PSEUDO.SCHEME]! >= 0) this.#refuse();
      return;
    }
    if (
      !isScheme(
        memory,
        this.#start + this.#pseudoAt[PSEUDO.SCHEME]!,
        this.#start + end[PSEUDO.SCHEME]!,
      )
    )
      this.#refuse(FAULT.BAD_FIELD);
    if (!hasMethod || end[PSEUDO.SCHEME]! < 0 || end[PSEUDO.PATH]! < 0) this.#refuse();
    if (!hasAuthority && this.#hosts === 0) this.#refuse();
    if (this.fault !== FAULT.NONE) return;
    this.#checkPath(size === 7 && latin1Decode(memory, methodAt, methodEnd) === "OPTIONS");
    const schemeAt = this.#start + this.#pseudoAt[PSEUDO.SCHEME]!;
    const isHttps = end[PSEUDO.SCHEME]! - this.#pseudoAt[PSEUDO.SCHEME]! === 5;
    if (isHttps && memory[schemeAt + 4] === 115) (this.#headers as RequestHeaders).scheme = "https";
  }

  /** `:path` begins with a slash or is `*` (RFC 9113 §8.3.1); no space or control character, as it becomes part of a line. */
  #checkPath(isOptions: boolean): void {
    const { memory } = this.#arena;
    const at = this.#start + this.#pseudoAt[PSEUDO.PATH]!;
    const end = this.#start + this.#pseudoEnd[PSEUDO.PATH]!;
    for (let k = at; k < end; k++)
      if (memory[k]! <= 32 || memory[k] === 127) this.#refuse(FAULT.BAD_FIELD);
    const isAsterisk = isOptions && memory[at] === 42 && end - at === 1;
    if (memory[at] !== 47 && !isAsterisk) this.#refuse();
  }

  /** Checks and sets `:status` (RFC 9113 §8.3.2). */
  #checkResponse(): void {
    const at = this.#start + this.#pseudoAt[PSEUDO.STATUS]!;
    const { memory } = this.#arena;
    let status = 0;
    if (this.#sizeOf(PSEUDO.STATUS) === 3) {
      for (let k = at; k < at + 3; k++) {
        const digit = memory[k]! - 48;
        if (digit < 0 || digit > 9) status = -1000;
        status = status * 10 + digit;
      }
    }
    if (status < 100 || status === 101) this.#refuse();
    else (this.#headers as ResponseHeaders).status = status;
  }

  /** Joins several cookie fields into one line, as HTTP/1 requires (RFC 9113 §8.2.3). */
  #joinCookies(): void {
    const headers = this.#headers;
    let size = COOKIE_LINE.length + 2;
    for (let k = headers.find(COOKIE); k >= 0; k = headers.find(COOKIE, k + 1))
      size += headers.spans[k * SPAN + 3]! - headers.spans[k * SPAN + 2]! + 2;
    this.#grow(size);
    const { memory } = this.#arena;
    headers.memory = memory;
    headers.base = this.#start + this.#linesAt;
    const { base } = headers;
    const nameAt = this.#here - this.#linesAt;
    this.#put(COOKIE_LINE);
    const valueAt = nameAt + COOKIE_LINE.length;
    for (let k = headers.find(COOKIE); k >= 0; k = headers.find(COOKIE, k + 1)) {
      if (this.#here - this.#linesAt > valueAt) this.#put(CRUMB);
      let { at } = this.#arena;
      const end = base + headers.spans[k * SPAN + 3]!;
      for (let q = base + headers.spans[k * SPAN + 2]!; q < end; q++) memory[at++] = memory[q]!;
      this.#arena.at = at;
      headers.removeAt(k);
    }
    const valueEnd = this.#here - this.#linesAt;
    this.#put(CRLF);
    headers.addSpan(nameAt, valueAt - 2, valueAt, valueEnd, COOKIE.hash, 0);
  }
}

const CRLF = latin1Encode("\r\n");
const CRUMB = latin1Encode("; ");

function isToken(memory: Uint8Array, at: number, end: number): boolean {
  for (let k = at; k < end; k++) if (tokenByte[memory[k]!] === 0) return false;
  return end > at;
}

/** A table with 1 at each of these bytes. */
function bytesOf(chars: string): Uint8Array {
  const table = new Uint8Array(256);
  for (const char of chars) table[char.charCodeAt(0)] = 1;
  return table;
}

function isScheme(memory: Uint8Array, at: number, end: number): boolean {
  for (let k = at; k < end; k++) if (schemeByte[memory[k]!] === 0) return false;
  return true;
}

function isAuthority(memory: Uint8Array, at: number, end: number): boolean {
  for (let k = at; k < end; k++) if (authorityByte[memory[k]!] === 0) return false;
  return true;
}

/** Parses a content-length: 1 to 15 digits (RFC 9110 §8.6); else -1. */
function parseLength(memory: Uint8Array, at: number, end: number): number {
  if (at === end || end - at > 15) return -1;
  let length = 0;
  for (let k = at; k < end; k++) {
    const digit = memory[k]! - 48;
    if (digit < 0 || digit > 9) return -1;
    length = length * 10 + digit;
  }
  return length;
}

/** Removes fields whose names have an underscore; returns how many. */
export function dropUnderscores(headers: HeaderMap): number {
  let dropped = 0;
  for (let k = 0; k < headers.count; k++) {
    const { memory, base, spans } = headers;
    if ((spans[k * SPAN + 5]! & FLAG.REMOVED) !== 0) continue;
    const end = base + spans[k * SPAN + 1]!;
    let q = base + spans[k * SPAN]!;
    while (q < end && memory[q] !== 95) q++;
    if (q === end) continue;
    headers.removeAt(k);
    dropped++;
  }
  return dropped;
}
