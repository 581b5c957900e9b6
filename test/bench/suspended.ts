/**
 * Measures the memory of requests whose Lua script waits in `httpCall`, and their effect on another route of the same worker.
 *
 *   node test/bench/suspended.ts [requests at once]      (10000; past 10,240 the scripts see an overflow)
 *
 * Fails above 48 KiB per waiting request, which includes all that the burst leaves behind, or if any request is not answered by
 * its script, or one on the other route is lost.
 */
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { get } from "../integration/client.ts";
import { bootstrap, cluster, direct, http, listener, unlimited } from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";

const BAR_KIB = 48;
const STREAMS = 100; // per connection
/** Pause after the first burst, in which its garbage may be collected. */
const SETTLE_MS = 2_000;
const [requests = 10_000] = process.argv.slice(2).map(Number);

const SCRIPT = `function envoy_on_request(h)
  local headers = h:httpCall("slow", { [":method"] = "GET", [":path"] = "/", [":authority"] = "slow" }, nil, 60000)
  h:respond({ [":status"] = "200", ["x-answer"] = headers[":status"] }, "done")
end`;
const lua = {
  name: "envoy.filters.http.lua",
  typed_config: {
    "@type": "type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua",
    default_source_code: { inline_string: SCRIPT },
  },
};
const off = {
  "envoy.filters.http.lua": {
    "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig",
    disabled: true,
  },
};
const OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
const overHttp2 = {
  typed_extension_protocol_options: {
    [OPTIONS]: {
      "@type": `type.googleapis.com/${OPTIONS}`,
      explicit_http_config: { http2_protocol_options: {} },
    },
  },
};

/** Streams of the upstream that wait for an answer; `burst` gives it. */
const waiting: http2.ServerHttp2Stream[] = [];
const upstream = http2.createServer({ settings: { maxConcurrentStreams: 100_000 } });
upstream.on("stream", (stream) => waiting.push(stream.on("error", () => {})));
await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
const upstreamPort = (upstream.address() as AddressInfo).port;

const routes = [{ ...direct("/free", "free"), typed_per_filter_config: off }, direct("/", "late")];
const proxy = await Proxy.start({
  config: bootstrap(
    [listener("main", http(routes, {}, [lua]))],
    [cluster("slow", [upstreamPort], { ...unlimited, ...overHttp2 })],
  ),
  concurrency: 1,
});
const port = proxy.port("main");

/** Number of requests by answer: its status, and the status of `httpCall` that the script saw. */
const answers = new Map<string, number>();
const sessions: http2.ClientHttp2Session[] = [];
let answered = 0;
const beside = { served: 0, lost: 0, worstMs: 0 };
let going = true;
const probing = probe();

await burst(200, 0);
await delay(SETTLE_MS);
beside.worstMs = 0;
const each = await burst(requests, proxy.rss());
going = false;
await probing;
const shown = [...answers].map(([answer, n]) => `${n} x ${answer}`).join(", ");
const { served, lost, worstMs } = beside;
console.log(
  `answers: ${shown}; beside them ${served} served, ${lost} lost, at most ${worstMs.toFixed(0)} ms`,
);
for (const session of sessions) session.destroy();
await proxy.stop();
for (const { level, msg } of proxy.lines) if (level === "error") console.log(msg);
const isFine =
  each <= BAR_KIB && lost === 0 && [...answers.keys()].every((a) => a.startsWith("200 "));
process.exit(isFine ? 0 : 1);

/** Sends `count` requests at once and, when each waits or is answered, answers the waiting ones. Returns KiB per waiting one. */
async function burst(count: number, before: number): Promise<number> {
  answered = 0;
  answers.clear();
  for (let k = 0; k < count; k++) {
    if (k % STREAMS === 0)
      sessions.push(http2.connect(`http://127.0.0.1:${port}`).on("error", () => {}));
    ask(sessions.at(-1)!);
  }
  while (waiting.length + answered < count) await delay(20);
  const kib = (proxy.rss() - before) / waiting.length / 1024;
  if (before > 0) console.log(`${waiting.length} wait: ${kib.toFixed(1)} KiB each`);
  for (const stream of waiting.splice(0)) stream.respond({ ":status": 200 }, { endStream: true });
  while (answered < count) await delay(20);
  return kib;
}

function ask(session: http2.ClientHttp2Session): void {
  const count = (answer: string): void => {
    answers.set(answer, (answers.get(answer) ?? 0) + 1);
    answered++;
  };
  const stream = session.request({ ":path": "/" });
  stream.on("response", (head) => count(`${head[":status"]} ${head["x-answer"] ?? "no script"}`));
  stream.on("error", () => count("reset"));
  stream.resume();
}

async function probe(): Promise<void> {
  while (going) {
    const began = performance.now();
    const status = await get(port, "/free").then(
      (answer) => answer.status,
      () => 0,
    );
    beside.worstMs = Math.max(beside.worstMs, performance.now() - began);
    if (status === 200) beside.served++;
    else beside.lost++;
    await delay(20);
  }
}
