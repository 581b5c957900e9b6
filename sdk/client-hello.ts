import type { Chunk } from "./bytes.ts";

/** What a TLS client says before anything is encrypted (RFC 8446 §4.1.2). */
export interface ClientHello {
  /** Lower case; "" if none. */
  readonly serverName: string;
  readonly alpn: readonly string[];
  /** Numbers of IANA's registries, in the client's order. `groups` are those of key exchanges: curves, for the most part. */
  readonly cipherSuites: readonly number[];
  readonly groups: readonly number[];
  readonly signatureAlgorithms: readonly number[];
  /** RFC 8446 §4.2.1; empty of clients that know TLS 1.2 at most. */
  readonly versions: readonly number[];
  /** It asks for an OCSP response beside the certificate (RFC 6066 §8). */
  readonly asksForStatus: boolean;
  /** Groups that it has sent a key for (RFC 8446 §4.2.8); empty of clients that know TLS 1.2 at most. */
  readonly keyShares: readonly number[];
  /** The version in the message itself. This and the next two are for fingerprints of clients (JA3, JA4). */
  readonly legacyVersion: number;
  /** Types of all extensions, in the client's order. */
  readonly extensions: readonly number[];
  /** RFC 8422 §5.1.2 */
  readonly pointFormats: readonly number[];
}

const RECORD_HANDSHAKE = 22;
const RECORD_HEAD = 5;
const CLIENT_HELLO = 1;
const EXTENSION_SERVER_NAME = 0;
const EXTENSION_STATUS_REQUEST = 5;
const EXTENSION_GROUPS = 10;
const EXTENSION_POINT_FORMATS = 11;
const EXTENSION_SIGNATURE_ALGORITHMS = 13;
const EXTENSION_ALPN = 16;
const EXTENSION_VERSIONS = 43;
const EXTENSION_KEY_SHARE = 51;
/** A record holds at most so much, RFC 8446 §5.1. */
const MAX_RECORD = 16_384;

/**
 * Reads the ClientHello at the beginning of a connection, which may be spread over several records. "more": it is not complete
 * yet; "none": this is not TLS, or no ClientHello that a server would accept.
 */
export function readClientHello(bytes: Chunk): ClientHello | "more" | "none" {
  const message = handshakeMessage(bytes);
  if (typeof message === "string") return message;
  const hello = parse(new Reader(message, 4, message.length));
  return hello ?? "none";
}

/**
 * How many of the bytes are taken to read a ClientHello, or to see that there is none: the records with the first handshake
 * message, else what heads a record.
 */
export function helloSize(bytes: Chunk): number {
  const first = firstMessage(bytes);
  return Math.min(typeof first === "string" ? RECORD_HEAD : first.taken, bytes.length);
}

/** Why bytes are no ClientHello: BoringSSL's name and number of the error, and the alert that it sends (RFC 8446 §6.2). */
export interface HelloError {
  readonly reason: string;
  readonly code: number;
  /** Undefined: it sends none. */
  readonly alert?: number;
}

const HTTP_METHODS = ["GET ", "POST ", "HEAD ", "PUT "];
const RECORD_ALERT = 21;
/** Errors are numbered so from the alert's own number on. */
const ALERT_CODES = 1000;
const ALERTS: Readonly<Record<number, string>> = {
  0: "SSLV3_ALERT_CLOSE_NOTIFY",
  10: "SSLV3_ALERT_UNEXPECTED_MESSAGE",
  20: "SSLV3_ALERT_BAD_RECORD_MAC",
  40: "SSLV3_ALERT_HANDSHAKE_FAILURE",
  42: "SSLV3_ALERT_BAD_CERTIFICATE",
  46: "SSLV3_ALERT_CERTIFICATE_UNKNOWN",
  47: "SSLV3_ALERT_ILLEGAL_PARAMETER",
  48: "TLSV1_ALERT_UNKNOWN_CA",
  50: "TLSV1_ALERT_DECODE_ERROR",
  70: "TLSV1_ALERT_PROTOCOL_VERSION",
  80: "TLSV1_ALERT_INTERNAL_ERROR",
  90: "TLSV1_ALERT_USER_CANCELLED",
};

/** Names the error of bytes that `readClientHello` answers "none" for. Undefined if BoringSSL waits for more than these. */
export function helloError(bytes: Chunk): HelloError | undefined {
  const { memory, at, end } = bytes;
  if (end - at < 5) return undefined;
  const text = String.fromCharCode(...memory.subarray(at, at + 5));
  if (HTTP_METHODS.some((method) => text.startsWith(method)))
    return { reason: "HTTP_REQUEST", code: 156 };
  if (text === "CONNE") return { reason: "HTTPS_PROXY_REQUEST", code: 155 };
  if (memory[at + 1] !== 3) return { reason: "WRONG_VERSION_NUMBER", code: 247, alert: 70 };
  if (((memory[at + 3]! << 8) | memory[at + 4]!) > MAX_RECORD + 256)
    return { reason: "ENCRYPTED_LENGTH_TOO_LONG", code: 136, alert: 22 };
  if (memory[at] === RECORD_ALERT) {
    if (end - at < 7) return undefined;
    const number = memory[at + 6]!;
    const reason = ALERTS[number];
    if (reason !== undefined) return { reason, code: ALERT_CODES + number };
  }
  if (memory[at] !== RECORD_HANDSHAKE) return { reason: "UNEXPECTED_RECORD", code: 225, alert: 10 };
  if (end - at > 5 && memory[at + 5] !== CLIENT_HELLO)
    return { reason: "UNEXPECTED_MESSAGE", code: 223, alert: 10 };
  return { reason: "CLIENTHELLO_PARSE_FAILED", code: 131, alert: 50 };
}

/** The first handshake message, taken out of its records. */
function handshakeMessage(bytes: Chunk): Uint8Array | "more" | "none" {
  const first = firstMessage(bytes);
  if (typeof first === "string") return first;
  const { memory, at, end } = bytes;
  const { size, have, taken } = first;
  const from = at + RECORD_HEAD;
  if (have === taken - RECORD_HEAD) return memory.subarray(from, from + size);
  return joinRecords(memory, at, end, have).subarray(0, size);
}

interface FirstMessage {
  readonly size: number;
  /** Size of what the records hold that it is spread over. */
  readonly have: number;
  /** Size of these records, with their heads. */
  readonly taken: number;
}

/** Finds the first handshake message. Creates nothing until it is complete: it may come in many pieces. */
function firstMessage({ memory, at, end }: Chunk): FirstMessage | "more" | "none" {
  let have = 0;
  /** The first four bytes of the message, its type and size. */
  let head = 0;
  let need = 4;
  let p = at;
  while (have < need) {
    if (p < end && memory[p] !== RECORD_HANDSHAKE) return "none";
    if (p + 1 < end && memory[p + 1] !== 3) return "none";
    if (p + RECORD_HEAD > end) return "more";
    const length = recordLength(memory, p);
    if (length === 0 || length > MAX_RECORD) return "none";
    const from = p + RECORD_HEAD;
    const to = Math.min(from + length, end);
    if (have === 0 && to > from && memory[from] !== CLIENT_HELLO) return "none";
    for (let q = from; q < to && have + q - from < 4; q++) head = (head << 8) | memory[q]!;
    have += to - from;
    if (need === 4 && have >= 4) need = 4 + (head & 0xff_ffff);
    if (have < need && from + length > end) return "more";
    p = from + length;
  }
  return { size: need, have, taken: p - at };
}

const recordLength = (memory: Uint8Array, at: number) => (memory[at + 3]! << 8) | memory[at + 4]!;

/** Joins the contents of records up to `size` bytes. */
function joinRecords(memory: Uint8Array, at: number, end: number, size: number): Uint8Array {
  const all = new Uint8Array(size);
  for (let p = at, to = 0; to < size; ) {
    const from = p + RECORD_HEAD;
    p = from + recordLength(memory, p);
    const part = memory.subarray(from, Math.min(p, end));
    all.set(part, to);
    to += part.length;
  }
  return all;
}

/** A range of bytes read from its front; past its end it gives zeros and is `broken`. */
class Reader {
  readonly bytes: Uint8Array;
  at: number;
  readonly end: number;
  broken = false;

  constructor(bytes: Uint8Array, at: number, end: number) {
    this.bytes = bytes;
    this.at = at;
    this.end = end;
  }
  number(size: 1 | 2): number {
    if (!this.skip(size)) return 0;
    const low = this.bytes[this.at - 1]!;
    return size === 1 ? low : (this.bytes[this.at - 2]! << 8) | low;
  }
  skip(size: number): boolean {
    if (this.at + size > this.end) {
      this.broken = true;
      this.at = this.end;
      return false;
    }
    this.at += size;
    return true;
  }
  /** What a length of `size` bytes announces. */
  vector(size: 1 | 2): Reader {
    const length = this.number(size);
    const from = this.at;
    if (this.skip(length)) return new Reader(this.bytes, from, from + length);
    return new Reader(this.bytes, this.end, this.end);
  }
  /** Numbers of two bytes, to the end. */
  numbers(): number[] {
    const all: number[] = [];
    while (this.more) all.push(this.number(2));
    return all;
  }
  /** Numbers of one byte, to the end. */
  octets(): number[] {
    const all: number[] = [];
    while (this.more) all.push(this.number(1));
    return all;
  }
  text(): string {
    let text = "";
    for (let k = this.at; k < this.end; k++) text += String.fromCharCode(this.bytes[k]!);
    return text;
  }
  get more(): boolean {
    return this.at < this.end;
  }
}

function parse(hello: Reader): ClientHello | undefined {
  const legacyVersion = hello.number(2);
  hello.skip(32); // random
  hello.vector(1); // session id
  const cipherSuites = hello.vector(2);
  hello.vector(1); // compression methods
  if (hello.broken) return undefined;
  let serverName = "";
  let alpn: readonly string[] = [];
  let groups: readonly number[] = [];
  let signatureAlgorithms: readonly number[] = [];
  let versions: readonly number[] = [];
  let asksForStatus = false;
  let keyShares: readonly number[] = [];
  let pointFormats: readonly number[] = [];
  const types: number[] = [];
  const extensions = hello.more ? hello.vector(2) : new Reader(hello.bytes, 0, 0);
  while (extensions.more) {
    const type = extensions.number(2);
    const body = extensions.vector(2);
    types.push(type);
    if (type === EXTENSION_SERVER_NAME) serverName = readServerName(body);
    else if (type === EXTENSION_ALPN) alpn = readAlpn(body);
    else if (type === EXTENSION_STATUS_REQUEST) asksForStatus = true;
    else if (type === EXTENSION_GROUPS) groups = body.vector(2).numbers();
    else if (type === EXTENSION_SIGNATURE_ALGORITHMS)
      signatureAlgorithms = body.vector(2).numbers();
    else if (type === EXTENSION_VERSIONS) versions = body.vector(1).numbers();
    else if (type === EXTENSION_KEY_SHARE) keyShares = readKeyShares(body);
    else if (type === EXTENSION_POINT_FORMATS) pointFormats = body.vector(1).octets();
    if (body.broken) return undefined;
  }
  if (hello.broken || extensions.broken) return undefined;
  return {
    serverName,
    alpn,
    cipherSuites: cipherSuites.numbers(),
    groups,
    signatureAlgorithms,
    versions,
    asksForStatus,
    keyShares,
    legacyVersion,
    extensions: types,
    pointFormats,
  };
}

/** RFC 6066 §3: a list of names of which only host names were ever defined. */
function readServerName(body: Reader): string {
  const list = body.vector(2);
  while (list.more) {
    const type = list.number(1);
    const name = list.vector(2);
    if (type === 0) return name.text().toLowerCase();
  }
  if (list.broken) body.broken = true;
  return "";
}

function readKeyShares(body: Reader): number[] {
  const list = body.vector(2);
  const groups: number[] = [];
  while (list.more) {
    groups.push(list.number(2));
    list.vector(2);
  }
  if (list.broken) body.broken = true;
  return groups;
}

function readAlpn(body: Reader): string[] {
  const list = body.vector(2);
  const names: string[] = [];
  while (list.more) names.push(list.vector(1).text());
  if (list.broken) body.broken = true;
  return names;
}
