// node test/bench/access-log.ts: ns of CPU that one access log line takes, from the entry of a stream to the buffer that core writes.
// Strings are made from the head's bytes anew for every line, as in the proxy; what parsing that head takes is left out.
import {
  Chunk,
  type Connection,
  compileFormat,
  compileJsonFormat,
  DEFAULT_LOG_FORMAT,
  type Format,
  HeaderLine,
  type LogEntry,
  newStreamInfo,
  type Output,
  RequestHeaders,
  type ResponseEncoder,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { CODEC_OPTIONS, TestContext } from "@tsproxy/sdk/testing";
import { FileTable } from "../../core/inside/files.ts";
import { Host } from "../../core/inside/host.ts";
import { chunkMemory } from "../../core/inside/line-chunks.ts";
import { ScopedStats, StatsTable } from "../../core/inside/stats.ts";
import { TimerWheel } from "../../core/inside/timers.ts";
import http1 from "../../filters/codec/http1/filter.ts";

const LINES = 200_000;
const memory = new Uint8Array(new SharedArrayBuffer(1 << 18));
const request = [
  "GET /index.html?page=1 HTTP/1.1",
  "Host: www.example.com",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0 Safari/537.36",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
  "Accept-Encoding: gzip, deflate, br",
  "Cookie: session=0123456789abcdef0123456789abcdef",
  "X-Forwarded-For: 203.0.113.7",
  "\r\n",
].join("\r\n");
memory.set(Buffer.from(request, "latin1"));

const response = new ResponseHeaders();
response.status = 200;
response.append("content-length", "49");
response.append("x-envoy-upstream-service-time", "3");
const info = newStreamInfo({
  startTime: 0,
  requestDuration: 0,
  responseDuration: 3,
  duration: 4,
  bytesSent: 49,
  responseCode: 200,
  responseCodeDetails: "via_upstream",
  routeName: "home",
  virtualHostName: "all",
  clusterName: "web",
  upstreamHost: { ip: "10.0.0.7", port: 8080 },
  upstreamLocalAddress: { ip: "10.0.0.1", port: 43210 },
  attempts: 1,
  connectionId: 7,
  downstreamRemoteAddress: { ip: "203.0.113.7", port: 0 },
  downstreamDirectAddress: { ip: "10.0.0.2", port: 5000 },
  downstreamLocalAddress: { ip: "10.0.0.1", port: 80 },
});
const JSON_FORMAT = {
  time: "%START_TIME%",
  method: "%REQ(:METHOD)%",
  path: "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
  protocol: "%PROTOCOL%",
  status: "%RESPONSE_CODE%",
  flags: "%RESPONSE_FLAGS%",
  received: "%BYTES_RECEIVED%",
  sent: "%BYTES_SENT%",
  duration: "%DURATION%",
  service_time: "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
  forwarded_for: "%REQ(X-FORWARDED-FOR)%",
  user_agent: "%REQ(USER-AGENT)%",
  request_id: "%REQ(X-REQUEST-ID)%",
  authority: "%REQ(:AUTHORITY)%",
  upstream_host: "%UPSTREAM_HOST%",
  upstream_cluster: "%UPSTREAM_CLUSTER%",
  route: "%ROUTE_NAME%",
};

/** Parses the head into `headers`, whose strings are not made yet. */
const headers = new RequestHeaders();
const empty = new ResponseHeaders();
empty.status = 204;
/** As the connection manager makes it: another one for each request, as bytes. */
const requestId = new HeaderLine("x-request-id", "65afd24c-2810-4231-a460-10df069e40c8");
let encoder: ResponseEncoder;
/** Takes what is written and forgets it. */
const output: Output = { memory: new Uint8Array(1 << 16), at: 0 };
const connection: Connection = {
  id: 1,
  remoteAddress: { ip: "127.0.0.1", port: 1 },
  localAddress: { ip: "127.0.0.1", port: 2 },
  open: true,
  blocked: false,
  ended: false,
  bytesReceived: 0,
  bytesSent: 0,
  reserve() {
    output.at = 0;
    return output;
  },
  commit() {},
  write() {},
  end() {},
  close() {},
  closeDelayed() {},
  pause() {},
  resume() {},
  again() {},
};
const codec = new TestContext().setup(http1, {}).createServer(
  connection,
  {
    onStream(given) {
      encoder = given;
      headers.reset();
      headers.appendLine(requestId);
      return {
        headers,
        onRequestHeaders: () => encoder.encodeHeaders(empty, true),
        onRequestBody() {},
        onRequestTrailers() {},
        onDecodeError() {},
        onReset() {},
        onBlocked() {},
      };
    },
    onIdleEnd() {},
  },
  CODEC_OPTIONS,
);
const chunk = new Chunk(memory, 0, 0);
function parse(): void {
  chunk.at = 0;
  chunk.end = request.length;
  codec.onData(chunk);
}

let written = 0;
const host = new Host((name, told) => {
  if (name === "lines") written += Number(told.split("\0")[2]);
});
const cells = new StatsTable(new Float64Array(4096), () => {});
const wheel = new TimerWheel(
  () => {},
  () => {},
);
const file = new FileTable(host, wheel, new ScopedStats(cells, ""), chunkMemory()).open(
  "/dev/null",
);
const entry: LogEntry = { info, request: headers, response, trailers: undefined };
let clock = Date.UTC(2026, 10, 20);

function log(format: Format): void {
  requestId.refresh();
  info.startTime = clock;
  clock += 0.1;
  file.print(format, entry);
}

function measure(run: () => void): number {
  let best = Number.POSITIVE_INFINITY;
  for (let round = 0; round < 5; round++) {
    const before = process.cpuUsage();
    for (let k = 0; k < LINES; k++) run();
    const { user, system } = process.cpuUsage(before);
    best = Math.min(best, ((user + system) * 1000) / LINES);
  }
  return best;
}

const text = compileFormat(DEFAULT_LOG_FORMAT);
const json = compileJsonFormat(JSON_FORMAT);
const parsing = measure(parse);
const report = (name: string, format: Format) => {
  const both = measure(() => {
    parse();
    log(format);
  });
  console.log(`${name}: ${(both - parsing).toFixed(0)} ns a line`);
};
report("the default text line", text);
report(`a JSON line of ${Object.keys(JSON_FORMAT).length} fields`, json);
console.log(`(${Math.round(written / 1e6)} MB went to the writer)`);
