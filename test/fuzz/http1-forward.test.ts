import {
  type Chunk,
  type DecodeError,
  type HeaderMap,
  type RequestDecoder,
  type RequestEncoder,
  RequestHeaders,
  type RequestInfo,
  type ResponseDecoder,
  type ResponseEncoder,
  ResponseHeaders,
} from "@tsproxy/sdk";
import {
  CODEC_OPTIONS,
  LentChunk,
  linesOf,
  TestConnection,
  TestContext,
} from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import http1 from "../../filters/codec/http1/filter.ts";
import { generate } from "./http1-generate.ts";
import { type Outcome, parseLlhttp } from "./http1-parsers.ts";
import { Random } from "./random.ts";

const OPTIONS = { ...CODEC_OPTIONS, acceptHttp10: true, enableTrailers: true };
const factory = new TestContext().setup(http1, {});
/** A head that leaves no room for another reading: every line ends with CRLF and is `name: value` in lower case. */
const STRICT_REQUEST =
  /^[!#$%&'*+.^_`|~0-9A-Za-z-]+ [\x21-\x7e]+ HTTP\/1\.1\r\n([!#$%&'*+.^_`|~0-9a-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*\r\n/;
const STRICT_RESPONSE =
  /^(HTTP\/1\.1 \d{3} [ A-Za-z-]+\r\n([!#$%&'*+.^_`|~0-9a-z-]+: [\t\x20-\x7e\x80-\xff]*\r\n)*\r\n)+/;
const FRAMING = new Set(["transfer-encoding", "connection", "content-length"]);

/** Forwards each request over an upstream connection of its own, and answers it. */
class Forwarder implements RequestDecoder {
  readonly headers = new RequestHeaders();
  readonly upstream = new TestConnection();
  start = "";
  lines = "";
  body = "";
  trailers = "";
  complete = false;
  isTunnel = false;
  error: DecodeError | undefined = undefined;
  readonly #downstream: ResponseEncoder;
  #encoder: RequestEncoder | undefined = undefined;

  constructor(downstream: ResponseEncoder) {
    this.#downstream = downstream;
  }
  onRequestHeaders(info: RequestInfo, endStream: boolean): void {
    this.isTunnel = info.isConnect || info.upgrade !== "";
    this.start = `${this.headers.method} ${info.isConnect ? this.headers.authority : this.headers.path}`;
    this.lines = sorted(this.headers);
    const client = factory.createClient(this.upstream, { onIdle() {}, onRetire() {} }, OPTIONS);
    this.#encoder = client.newStream(NOBODY);
    this.#encoder.encodeHeaders(this.headers, endStream, info.upgrade);
    if (endStream) this.#end();
  }
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    this.body += Buffer.from(chunk.copy()).toString("latin1");
    this.#encoder!.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
    if (endStream) this.#end();
  }
  onRequestTrailers(trailers: HeaderMap): void {
    this.trailers = sorted(trailers);
    this.#encoder!.encodeTrailers(trailers);
    this.#end();
  }
  #end(): void {
    this.complete = true;
    const headers = new ResponseHeaders();
    headers.status = 200;
    this.#downstream.encodeHeaders(headers, true);
  }
  onDecodeError(error: DecodeError): void {
    this.error = error;
  }
  onReset(): void {}
  onBlocked(): void {}
}

const NOBODY: ResponseDecoder = {
  responseHeaders: new ResponseHeaders(),
  onInformational() {},
  onResponseHeaders() {},
  onResponseBody() {},
  onResponseTrailers() {},
  onDecodeError() {},
  onUpstreamReset() {},
  onUpstreamBlocked() {},
};

/** What was decoded and is to be seen by whoever comes next, framing left out. */
function sorted(headers: HeaderMap): string {
  return linesOf(headers)
    .split(", ")
    .filter((line) => line !== "" && !FRAMING.has(line.slice(0, line.indexOf(":"))))
    .sort()
    .join("\n");
}

function received(lines: readonly string[]): string {
  const kept = lines.filter((line) => !FRAMING.has(line.slice(0, line.indexOf(":"))));
  return kept
    .map((line) => line.replace(":", ": "))
    .sort()
    .join("\n");
}

/** The generator's values have commas, which `linesOf` joins with; both sides split alike. */
function normal(text: string): string {
  return text.split(/\n|, /).sort().join("\n");
}

it("every request of 30,000 conversations that is forwarded is strictly valid, and reads back as the same", () => {
  const random = new Random(4711);
  let forwarded = 0;
  for (let k = 0; k < 30_000; k++) {
    const { kind, wire } = generate(random);
    if (kind === "response") continue;
    const streams: Forwarder[] = [];
    const events = {
      onStream(encoder: ResponseEncoder) {
        const stream = new Forwarder(encoder);
        streams.push(stream);
        return stream;
      },
      onIdleEnd() {},
    };
    const server = factory.createServer(new TestConnection(), events, OPTIONS);
    server.onData(new LentChunk(wire));
    for (const stream of streams) {
      const sent = stream.upstream.take();
      if (stream.start === "") {
        expect(sent, wire).toBe("");
        continue;
      }
      expect(sent, wire).toMatch(STRICT_REQUEST);
      if (stream.isTunnel) continue;
      const outcome = parseLlhttp("request", sent);
      const [message] = outcome.messages;
      expect(message, sent).toMatchObject({
        start: stream.start,
        minor: 1,
        body: stream.body,
        complete: stream.complete,
        keepAlive: true,
      });
      expect(outcome.messages, sent).toHaveLength(1);
      expect(normal(received(message!.headers)), sent).toBe(normal(stream.lines));
      expect(normal(received(message!.trailers)), sent).toBe(normal(stream.trailers));
      expect(outcome.end, sent).toBe(stream.complete ? "end" : "incomplete");
      forwarded++;
    }
  }
  expect(forwarded).toBeGreaterThan(8_000);
});

/** Passes what the upstream says on to a client that asked with GET. */
class Answerer implements ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  readonly encoder: ResponseEncoder;
  lines = "";
  body = "";
  complete = false;
  failed = false;

  constructor(encoder: ResponseEncoder) {
    this.encoder = encoder;
  }
  onInformational(headers: ResponseHeaders): void {
    this.encoder.encodeInformational(headers);
  }
  onResponseHeaders(endStream: boolean): void {
    this.lines = sorted(this.responseHeaders);
    this.encoder.encodeHeaders(this.responseHeaders, endStream);
    this.complete = endStream;
  }
  onResponseBody(chunk: Chunk, endStream: boolean): void {
    this.body += Buffer.from(chunk.copy()).toString("latin1");
    this.encoder.encodeBody(chunk.memory, chunk.at, chunk.end, endStream);
    this.complete = endStream;
  }
  onResponseTrailers(trailers: HeaderMap): void {
    this.encoder.encodeTrailers(trailers);
    this.complete = true;
  }
  onDecodeError(): void {
    this.failed = true;
  }
  onUpstreamReset(): void {
    this.failed = true;
    this.encoder.reset();
  }
  onUpstreamBlocked(): void {}
}

it("every response that is passed on is strictly valid, and ends only if the upstream's did", () => {
  const random = new Random(815);
  let passed = 0;
  for (let k = 0; k < 30_000; k++) {
    const { kind, wire } = generate(random);
    if (kind === "request") continue;
    const downstream = new TestConnection();
    let encoder: ResponseEncoder | undefined;
    const events = {
      onStream(given: ResponseEncoder) {
        encoder = given;
        return new Forwarder(given);
      },
      onIdleEnd() {},
    };
    const server = factory.createServer(downstream, events, OPTIONS);
    // A body that never comes keeps the stream open while the upstream answers.
    server.onData(new LentChunk("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"));
    const answerer = new Answerer(encoder!);
    const client = factory.createClient(
      new TestConnection(),
      { onIdle() {}, onRetire() {} },
      OPTIONS,
    );
    const request = new RequestHeaders();
    request.method = "GET";
    client.newStream(answerer).encodeHeaders(request, true, "");
    client.onData(new LentChunk(wire));
    client.onEof();
    const sent = downstream.take();
    if (sent === "") continue;
    expect(sent, wire).toMatch(STRICT_RESPONSE);
    const outcome: Outcome = parseLlhttp("response", sent);
    const final = outcome.messages.at(-1)!;
    if (/^1/.test(final.start)) continue;
    expect(outcome.end, `${wire}\n${sent}`).not.toBe("error");
    expect(final.body, sent).toBe(/^(204|304)$/.test(final.start) ? "" : answerer.body);
    expect(final.complete, `${wire}\n${sent}`).toBe(answerer.complete);
    expect(normal(received(final.headers)), sent).toBe(normal(answerer.lines));
    passed++;
  }
  expect(passed).toBeGreaterThan(3_000);
});
