// node test/bench/http1-codec.ts: ns that the HTTP/1.1 codec takes for one exchange, on shared memory as in an isolate.
// The sinks do nothing, so this is the codec's share of a request: parse it, write it upstream, parse the answer, write it.
import {
  Chunk,
  type Connection,
  type Output,
  RequestHeaders,
  type ResponseEncoder,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { CODEC_OPTIONS, TestContext } from "@tsproxy/sdk/testing";
import http1 from "../../filters/codec/http1/filter.ts";

const ROUNDS = 200_000;
const memory = new Uint8Array(new SharedArrayBuffer(1 << 20));
const REQUEST_AT = 1 << 19;
const RESPONSE_AT = REQUEST_AT + (1 << 16);

const request = [
  "GET /index.html?page=1 HTTP/1.1",
  "Host: www.example.com",
  "Connection: keep-alive",
  "Cache-Control: max-age=0",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Referer: https://www.example.com/",
  "Accept-Encoding: gzip, deflate, br",
  "Accept-Language: en-GB,en;q=0.9",
  "Cookie: session=0123456789abcdef0123456789abcdef",
  "\r\n",
].join("\r\n");
const response = [
  "HTTP/1.1 200 OK",
  "Server: nginx",
  "Date: Thu, 01 Jan 1970 00:00:00 GMT",
  "Content-Type: text/plain",
  "Content-Length: 49",
  "Connection: keep-alive",
  `\r\n${"x".repeat(49)}`,
].join("\r\n");

/** Takes what is written and forgets it; one output segment, used again and again. */
class Sink implements Connection {
  readonly id = 1;
  readonly remoteAddress = { ip: "127.0.0.1", port: 1 };
  readonly localAddress = { ip: "127.0.0.1", port: 2 };
  readonly open = true;
  readonly blocked = false;
  readonly ended = false;
  readonly bytesReceived = 0;
  bytesSent = 0;
  readonly #output: Output = { memory, at: 0 };

  reserve(): Output {
    this.#output.at = 0;
    return this.#output;
  }
  commit(output: Output): void {
    this.bytesSent += output.at;
  }
  write(_memory: Uint8Array, at: number, end: number): void {
    this.bytesSent += end - at;
  }
  end(): void {}
  close(): void {}
  closeDelayed(): void {}
  pause(): void {}
  resume(): void {}
  again(): void {}
}

const factory = new TestContext().setup(http1, {});
const downstream = new Sink();
const upstream = new Sink();
const chunk = new Chunk(memory, 0, 0);
let encoder: ResponseEncoder;
let forward = false;

const client = factory.createClient(upstream, { onIdle() {}, onRetire() {} }, CODEC_OPTIONS);
const answer = {
  responseHeaders: new ResponseHeaders(),
  onInformational() {},
  onResponseHeaders(endStream: boolean) {
    encoder.encodeHeaders(this.responseHeaders, endStream);
  },
  onResponseBody(body: Chunk, endStream: boolean) {
    encoder.encodeBody(body.memory, body.at, body.end, endStream);
  },
  onResponseTrailers() {},
  onDecodeError() {},
  onUpstreamReset() {},
  onUpstreamBlocked() {},
};
const empty = new ResponseHeaders();
empty.status = 204;
const decoder = {
  headers: new RequestHeaders(),
  onRequestHeaders() {
    if (forward) client.newStream(answer).encodeHeaders(this.headers, true, "");
    else encoder.encodeHeaders(empty, true);
  },
  onRequestBody() {},
  onRequestTrailers() {},
  onDecodeError() {},
  onReset() {},
  onBlocked() {},
};
const server = factory.createServer(
  downstream,
  {
    onStream(given) {
      encoder = given;
      return decoder;
    },
    onIdleEnd() {},
  },
  CODEC_OPTIONS,
);

const requestBytes = Buffer.from(request, "latin1");
const responseBytes = Buffer.from(response, "latin1");

function read(codec: { onData(chunk: Chunk): void }, at: number, size: number): void {
  chunk.memory = memory;
  chunk.at = at;
  chunk.end = at + size;
  codec.onData(chunk);
}

function measure(name: string, exchange: () => void): void {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    const started = process.hrtime.bigint();
    for (let k = 0; k < ROUNDS; k++) exchange();
    best = Math.min(best, Number(process.hrtime.bigint() - started) / ROUNDS);
  }
  console.log(`${name}: ${best.toFixed(0)} ns`);
}

memory.set(requestBytes, REQUEST_AT);
memory.set(responseBytes, RESPONSE_AT);
measure(`request of ${requestBytes.length} bytes parsed, 204 written`, () => {
  read(server, REQUEST_AT, requestBytes.length);
});
forward = true;
measure("the same forwarded upstream, its answer parsed and forwarded", () => {
  read(server, REQUEST_AT, requestBytes.length);
  read(client, RESPONSE_AT, responseBytes.length);
});
