import { createRequire } from "node:module";
import {
  Chunk as Bytes,
  type Chunk,
  type DecodeError,
  type HeaderMap,
  latin1Decode,
  type RequestDecoder,
  RequestHeaders,
  type RequestInfo,
  type ResponseDecoder,
  type ResponseEncoder,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { CODEC_OPTIONS, TestConnection, TestContext } from "@tsproxy/sdk/testing";
import http1 from "../../filters/codec/http1/filter.ts";

/** A message as a parser understood it, in terms that both parsers have. */
export interface Message {
  /** Method and target, or status. */
  start: string;
  minor: number;
  /** Every line, `name:value`, names in lower case. */
  headers: string[];
  body: string;
  trailers: string[];
  keepAlive: boolean;
  complete: boolean;
}

export interface Outcome {
  readonly messages: Message[];
  /** Ours: how many bytes had been read when each complete message was; exact if they came singly. */
  readonly ends: number[];
  /** `end`: between messages. `closed`: after one that was the last. `tunnel`: what follows is another protocol. */
  end: "end" | "closed" | "tunnel" | "incomplete" | "error";
  error: string;
}

const FRAMING_TRAILERS = new Set([
  "host",
  "connection",
  "content-length",
  "transfer-encoding",
  "keep-alive",
  "proxy-connection",
  "te",
  "trailer",
  "upgrade",
  "expect",
]);
const OPTIONS = {
  ...CODEC_OPTIONS,
  acceptHttp10: true,
  enableTrailers: true,
  maxHeadBytes: 1 << 20,
};
const factory = new TestContext().setup(http1, {});

// ---- ours

export function parseOurs(kind: "request" | "response", pieces: readonly string[]): Outcome {
  return kind === "request" ? parseOurRequests(pieces) : parseOurResponses(pieces);
}

function parseOurRequests(pieces: readonly string[]): Outcome {
  const outcome: Outcome = { messages: [], ends: [], end: "end", error: "" };
  let read = 0;
  const connection = new TestConnection();
  let closed = false;
  const codec = factory.createServer(
    connection,
    {
      onStream: (encoder) => new OurRequest(outcome, encoder),
      onIdleEnd: () => {
        closed = true;
      },
    },
    OPTIONS,
  );
  for (const piece of pieces) {
    read += piece.length;
    codec.onData(lent(piece));
    noteEnds(outcome, read);
    while (connection.agains > 0) {
      connection.agains = 0;
      codec.onAgain();
    }
  }
  if (outcome.end === "error" || outcome.end === "tunnel") return outcome;
  if (closed) {
    outcome.end = "closed";
    outcome.messages.at(-1)!.keepAlive = false;
  } else if (codec.active) outcome.end = "incomplete";
  return outcome;
}

class OurRequest implements RequestDecoder {
  readonly headers = new RequestHeaders();
  readonly #outcome: Outcome;
  readonly #encoder: ResponseEncoder;
  #message: Message | undefined = undefined;

  constructor(outcome: Outcome, encoder: ResponseEncoder) {
    this.#outcome = outcome;
    this.#encoder = encoder;
  }
  onRequestHeaders(info: RequestInfo, endStream: boolean): void {
    const { memory, base } = this.headers;
    let end = base;
    while (memory[end] !== 10) end++;
    const [method, target] = latin1Decode(memory, base, end).split(" ");
    this.#message = newMessage(`${method} ${target}`, info.protocol === "HTTP/1.1" ? 1 : 0);
    this.#message.headers = allLines(this.headers);
    this.#outcome.messages.push(this.#message);
    if (info.isConnect || info.upgrade !== "") {
      this.#message.complete = true;
      this.#outcome.end = "tunnel";
    } else if (endStream) this.#end();
  }
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    if (this.#outcome.end === "tunnel") return;
    this.#message!.body += latin1Decode(chunk.memory, chunk.at, chunk.end);
    if (endStream) this.#end();
  }
  onRequestTrailers(trailers: HeaderMap): void {
    this.#message!.trailers = keptTrailers(allLines(trailers));
    this.#end();
  }
  #end(): void {
    this.#message!.complete = true;
    const headers = new ResponseHeaders();
    headers.status = 200;
    // Without it a client of HTTP/1.0 is told the end of what answers a HEAD by the end of the connection.
    headers.set("content-length", "0");
    this.#encoder.encodeHeaders(headers, true);
  }
  onDecodeError(error: DecodeError): void {
    this.#outcome.end = "error";
    this.#outcome.error = error.details;
  }
  onReset(reason: string): void {
    throw new Error(`the codec reset a request: ${reason}`);
  }
  onBlocked(): void {}
}

function parseOurResponses(pieces: readonly string[]): Outcome {
  const outcome: Outcome = { messages: [], ends: [], end: "end", error: "" };
  let read = 0;
  const connection = new TestConnection();
  let idle = true;
  let retired = false;
  const events = {
    onIdle: () => {
      idle = true;
    },
    onRetire: () => {
      retired = true;
    },
  };
  const codec = factory.createClient(connection, events, OPTIONS);
  const ask = () => {
    idle = false;
    const request = new RequestHeaders();
    request.method = "GET";
    request.path = "/";
    codec.newStream(new OurResponse(outcome)).encodeHeaders(request, true, "");
  };
  for (const piece of pieces) {
    if (piece === "") continue;
    // The response side sees one exchange at a time, so a piece is given in single bytes once a response may have ended.
    for (const byte of piece) {
      if (idle && !retired) ask();
      read++;
      codec.onData(lent(byte));
      noteEnds(outcome, read);
    }
  }
  if (outcome.end === "error") return outcome;
  const last = outcome.messages.at(-1);
  if (last !== undefined && retired) last.keepAlive = false;
  if (last?.complete === true && retired) outcome.end = "closed";
  else if (!idle) outcome.end = "incomplete";
  return outcome;
}

class OurResponse implements ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly #outcome: Outcome;
  #message: Message | undefined = undefined;

  constructor(outcome: Outcome) {
    this.#outcome = outcome;
  }
  #begin(headers: ResponseHeaders): Message {
    const message = newMessage(`${headers.status}`, headers.memory[headers.base + 7]! - 48);
    message.headers = allLines(headers);
    this.#outcome.messages.push(message);
    this.#message = message;
    return message;
  }
  onInformational(headers: ResponseHeaders): void {
    this.#begin(headers).complete = true;
  }
  onResponseHeaders(endStream: boolean): void {
    this.#begin(this.responseHeaders).complete = endStream;
  }
  onResponseBody(chunk: Chunk, endStream: boolean): void {
    this.#message!.body += latin1Decode(chunk.memory, chunk.at, chunk.end);
    this.#message!.complete = endStream;
  }
  onResponseTrailers(trailers: HeaderMap): void {
    this.#message!.trailers = keptTrailers(allLines(trailers));
    this.#message!.complete = true;
  }
  onDecodeError(error: DecodeError): void {
    this.#outcome.end = "error";
    this.#outcome.error = error.details;
  }
  onUpstreamReset(reason: string): void {
    this.#outcome.end = "error";
    this.#outcome.error = reason;
  }
  onUpstreamBlocked(): void {}
}

function noteEnds(outcome: Outcome, read: number): void {
  const complete = outcome.messages.filter((message) => message.complete).length;
  while (outcome.ends.length < complete) outcome.ends.push(read);
}

/** Lines as they came, those that are not forwarded among them. */
function allLines(headers: HeaderMap): string[] {
  const lines: string[] = [];
  for (let k = 0; k < headers.count; k++) lines.push(`${headers.nameAt(k)}:${headers.valueAt(k)}`);
  return lines;
}

function keptTrailers(lines: readonly string[]): string[] {
  return lines.filter((line) => !FRAMING_TRAILERS.has(line.slice(0, line.indexOf(":"))));
}

function lent(text: string): Bytes {
  const bytes = Buffer.from(text, "latin1");
  return new Bytes(new Uint8Array(bytes), 0, bytes.length);
}

function newMessage(start: string, minor: number): Message {
  return { start, minor, headers: [], body: "", trailers: [], keepAlive: true, complete: false };
}

// ---- llhttp, as Node drives it

type Callback = (...args: never[]) => unknown;
interface Llhttp {
  [callback: number]: Callback;
  initialize(type: number, resource: object, maxHeaderSize: number, lenient: number): void;
  execute(bytes: Buffer): number | (Error & { code: string; reason: string });
}
interface LlhttpClass {
  new (): Llhttp;
  readonly REQUEST: number;
  readonly RESPONSE: number;
  readonly kOnMessageBegin: number;
  readonly kOnHeaders: number;
  readonly kOnHeadersComplete: number;
  readonly kOnBody: number;
  readonly kOnMessageComplete: number;
}
const internals = createRequire(import.meta.url)("_http_common") as {
  readonly HTTPParser: LlhttpClass;
  readonly methods: readonly string[];
};
const { HTTPParser, methods } = internals;
const llhttp = new HTTPParser();
let outcome: Outcome = { messages: [], ends: [], end: "end", error: "" };
let message: Message | undefined;
/** Lines and target that came before the end of the head: Node flushes now and then. */
let early: string[] = [];
let earlyUrl = "";
let stopped = false;

llhttp[HTTPParser.kOnMessageBegin] = () => {
  early = [];
  earlyUrl = "";
  message = undefined;
  if (!stopped) outcome.end = "incomplete";
};
llhttp[HTTPParser.kOnHeaders] = (lines: string[], url: string) => {
  if (stopped) return;
  if (message === undefined) {
    early.push(...pairs(lines));
    earlyUrl += url;
  } else message.trailers = keptTrailers([...message.trailers, ...pairs(lines)]);
};
llhttp[HTTPParser.kOnHeadersComplete] = (
  _major: number,
  minor: number,
  lines: string[] | undefined,
  method: number,
  url: string | undefined,
  status: number | undefined,
  _reason: string,
  upgrade: boolean,
  keepAlive: boolean,
): number => {
  if (stopped) return 0;
  message = newMessage(
    status === undefined ? `${methods[method]} ${url ?? earlyUrl}` : `${status}`,
    minor,
  );
  message.headers = [...early, ...pairs(lines ?? [])];
  message.keepAlive = keepAlive;
  outcome.messages.push(message);
  if (upgrade) outcome.end = "tunnel";
  return 0;
};
llhttp[HTTPParser.kOnBody] = (bytes: Buffer) => {
  if (!stopped) message!.body += bytes.toString("latin1");
};
llhttp[HTTPParser.kOnMessageComplete] = () => {
  if (stopped) return;
  message!.complete = true;
  if (outcome.end === "tunnel") stopped = true;
  // For llhttp a 1xx without `keep-alive` ends nothing.
  else if (!message!.keepAlive && !/^1\d\d$/.test(message!.start)) {
    outcome.end = "closed";
    stopped = true;
  } else outcome.end = "end";
};

export function parseLlhttp(kind: "request" | "response", wire: string): Outcome {
  outcome = { messages: [], ends: [], end: "end", error: "" };
  message = undefined;
  stopped = false;
  llhttp.initialize(kind === "request" ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, 1 << 20, 0);
  const result = llhttp.execute(Buffer.from(wire, "latin1"));
  if (result instanceof Error && !stopped) {
    outcome.end = "error";
    outcome.error = `${result.code}: ${result.reason}`;
  }
  // Node reports no error once an upgrade is asked for; then only the count of bytes tells.
  if (outcome.end === "tunnel" && !message!.complete) {
    outcome.end = result === wire.length ? "incomplete" : "error";
    outcome.error = "hidden by an upgrade";
  }
  return outcome;
}

function pairs(lines: readonly string[]): string[] {
  const joined: string[] = [];
  for (let k = 0; k + 1 < lines.length; k += 2)
    joined.push(`${lines[k]!.toLowerCase()}:${lines[k + 1]}`);
  return joined;
}
