/**
 * Measures header scripts by themselves: the filter `http/lua` on heads in memory, without a sandbox or sockets. Prints the
 * minimum of many short turns, which other work on the machine hardly affects.
 *
 *   node --no-maglev --no-use-osr --max-semi-space-size=2 test/bench/lua.ts [turns]
 */
import {
  type HttpFilterFactory,
  type HttpStream,
  headerName,
  latin1Encode,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { TestContext, withDefaults } from "@tsproxy/sdk/testing";
import { Config } from "../../filters/http/lua/config.ts";
import lua from "../../filters/http/lua/filter.ts";

const turns = Number(process.argv[2] ?? 400);
const TURN = 500;
const LINES = `host: www.example.com
user-agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36
accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8
accept-language: en-GB,en;q=0.9,de;q=0.8
accept-encoding: gzip, deflate, br, zstd
cookie: session=4f1c9a7be2d34c0f9b8a; theme=dark; consent=yes
referer: http://127.0.0.1/start
cache-control: max-age=0`;
const request = new RequestHeaders();
const response = new ResponseHeaders();
const bytes = latin1Encode(LINES);

/** As a parser would. */
const spans = LINES.split("\n").map((line) => {
  const at = LINES.indexOf(line);
  const colon = line.indexOf(":");
  return { at, colon, end: at + line.length, name: headerName(line.slice(0, colon)) };
});
function fill(map: RequestHeaders | ResponseHeaders, count: number): void {
  map.reset();
  map.memory = bytes;
  map.blockEnd = bytes.length;
  for (let k = 0; k < count; k++) {
    const { at, colon, end, name } = spans[k]!;
    map.addSpan(at, at + colon, at + colon + 2, end, name.hash, name.known);
  }
}

/** The scripts of test/bench/cpu.ts. */
const script = (n: number): string => `
  function envoy_on_request(handle)
    local headers = handle:headers()
    local agent = headers:get("user-agent")
    if agent and agent:find("Mozilla", 1, true) then headers:add("x-stamp-${n}", "seen") end
  end
  function envoy_on_response(handle)
    handle:headers():replace("x-stamped-${n}", "yes")
  end`;
const factoryOf = (n: number): HttpFilterFactory => {
  const config = { default_source_code: { text: script(n), modules: {} } };
  return new TestContext().setup(lua, withDefaults(Config, config)) as HttpFilterFactory;
};

class Stream {
  readonly request = request;
  readonly response = response;
  readonly routeConfig = undefined;
  clearRoute(): void {}
}

function turn(factories: readonly HttpFilterFactory[]): number {
  const began = process.hrtime.bigint();
  for (let k = 0; k < TURN; k++) {
    fill(request, spans.length);
    fill(response, 4);
    const stream = new Stream() as unknown as HttpStream;
    const filters = factories.map((make) => make(stream));
    for (const filter of filters) filter.onRequestHeaders?.(request, true);
    for (const filter of filters) filter.onResponseHeaders?.(response, false);
  }
  return Number(process.hrtime.bigint() - began) / TURN;
}

let nothing = 0;
for (const count of [0, 1, 2, 5]) {
  const factories = Array.from({ length: count }, (_, n) => factoryOf(n));
  let least = Infinity;
  for (let k = 0; k < turns; k++) least = Math.min(least, turn(factories));
  if (count === 0) nothing = least;
  else console.log(`${count} scripts: ${(least - nothing).toFixed(0)} ns a stream`);
}
