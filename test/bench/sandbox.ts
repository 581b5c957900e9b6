/**
 * What one dropped-in filter costs: it reads a request header and sets one on the request and the response. Everything but the
 * sockets and the builtin isolate is real: stubs, records, crossings, verdicts. Prints CPU of this thread per request.
 *
 *   node --no-node-snapshot --no-maglev --no-use-osr test/bench/sandbox.ts [requests]
 */
import {
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  headerName,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import { type ParkPorts, ParkTable } from "../../core/inside/parked.ts";
import { parkedHttpFactory } from "../../core/inside/parked-http.ts";
import { Watchdog } from "../../core/isolate.ts";
import { imageCode } from "../../core/sandbox/fake-worker.ts";
import { SandboxImage } from "../../core/sandbox/image.ts";
import { Sandbox } from "../../core/sandbox/sandbox.ts";
import { Supply } from "../../core/sandbox/supply.ts";

const requests = Number(process.argv[2] ?? 40_000);
const HEAD =
  "GET /index.html?x=1 HTTP/1.1\r\nhost: www.example.com\r\nuser-agent: wrk/4.2\r\naccept: text/html,application/json\r\naccept-encoding: gzip, deflate\r\naccept-language: en\r\ncookie: session=0123456789abcdef0123456789abcdef\r\nx-request-id: 00000000-0000-4000-8000-000000000000\r\n";
const RESPONSE =
  "content-type: text/plain\r\ncontent-length: 49\r\nserver: upstream\r\ndate: Thu, 20 Nov 2026 12:00:00 GMT\r\n";
const CODE = `
import { defineHttpFilter, headerName, Type } from "@tsproxy/sdk";
const SEEN = headerName("x-seen"), AGENT = headerName("user-agent");
class Bench {
  onRequestHeaders(headers) { headers.set(SEEN, headers.get(AGENT) ?? "none"); }
  onResponseHeaders(headers) { headers.set(SEEN, "yes"); }
}
export default defineHttpFilter({ name: "bench", config: Type.Object({}), setup: () => () => new Bench() });`;

const memory = new SharedArrayBuffer(8 * 1024 * 1024);
const bytes = new Uint8Array(memory);
const buffer = Buffer.from(memory);
const HEAD_AT = 1024;
const RESPONSE_AT = 4096;
const ARENA = 64 * 1024;
const ANSWERS = 4 * 1024 * 1024;
buffer.write(HEAD, HEAD_AT, "latin1");
buffer.write(RESPONSE, RESPONSE_AT, "latin1");
let arena = ARENA;
let answers = ANSWERS;
const commands: number[] = [];
const events: number[] = [];

const ports: ParkPorts = {
  memory: bytes,
  words: new Int32Array(memory),
  reserve: (size) => {
    const at = arena;
    arena += (size + 7) & ~7;
    return at;
  },
  park: (_box, token, at, size) => void commands.push(token, at, size),
  forget: (_box, token) => void commands.push(token, -1, 0),
  again: () => {},
  malformed: (_box, reason) => {
    throw new Error(reason);
  },
  thrown: (error) => {
    throw error;
  },
  // Through core. The way by the gate is that of cpu.ts filter.
  inCrossing: false,
  hasRoom: true,
  now: 0,
};
const table = new ParkTable(ports);
const image = new SandboxImage(await imageCode());
const sandbox = new Sandbox({
  package: "http/bench",
  worker: 0,
  node: { id: "", cluster: "" },
  supply: new Supply(image),
  watchdog: new Watchdog(),
  module: { code: CODE, filename: "bench.js" },
  memory: buffer,
  place: (size) => {
    const at = answers;
    answers += (size + 7) & ~7;
    return at;
  },
  onVerdict: (token, at, size) => void events.push(token, at, size),
  onWork: () => {},
  onFault: (fault) => console.log(fault.reason),
  onLog: () => {},
  stats: { cells: new Float64Array(16), define: () => -1 },
});
await sandbox.prepare([{ id: 1, config: {}, place: "" }]);

function flush(): void {
  do {
    for (let k = 0; k < events.length; k += 3)
      table.onVerdict(events[k]!, events[k + 1]!, events[k + 2]!);
    events.length = 0;
    for (let k = 0; k < commands.length; k += 3) {
      if (commands[k + 1] === -1) sandbox.forget(commands[k]!);
      else sandbox.park(commands[k]!, commands[k + 1]!, commands[k + 2]!);
    }
    commands.length = 0;
    if (sandbox.wantsEntry()) sandbox.enter();
  } while (events.length > 0);
  arena = ARENA;
  answers = ANSWERS;
}

/** Spans of a head whose lines begin at `from`; made once, copied for each stream as a parser would write them. */
function parsed(
  map: RequestHeaders | ResponseHeaders,
  text: string,
  from: number,
  base: number,
): void {
  let at = from;
  map.memory = bytes;
  map.base = base;
  map.blockEnd = text.length;
  for (const line of text.slice(from).split("\r\n")) {
    const colon = line.indexOf(":");
    if (colon > 0) {
      const name = headerName(line.slice(0, colon));
      map.addSpan(at, at + colon, at + colon + 2, at + line.length, name.hash, name.known);
    }
    at += line.length + 2;
  }
}
const requestModel = new RequestHeaders();
requestModel.methodEnd = 3;
requestModel.pathAt = 4;
requestModel.pathEnd = 19;
parsed(requestModel, HEAD, HEAD.indexOf("\r\n") + 2, HEAD_AT);
const responseModel = new ResponseHeaders();
parsed(responseModel, RESPONSE, 0, RESPONSE_AT);

class Slot {
  readonly request = new RequestHeaders();
  readonly response = new ResponseHeaders();
  readonly stream = { request: this.request } as unknown as HttpStream;
  filter: HttpFilter | undefined = undefined;
  passed = 0;
  readonly #onSettled = (): void => void this.passed++;

  fill(map: RequestHeaders | ResponseHeaders, model: RequestHeaders | ResponseHeaders): void {
    map.reset();
    map.spans = model.spans.slice();
    map.count = model.count;
    map.memory = bytes;
    map.base = model.base;
    map.blockEnd = model.blockEnd;
    map.present = model.present;
    if (map instanceof RequestHeaders && model instanceof RequestHeaders) {
      map.methodEnd = model.methodEnd;
      map.pathAt = model.pathAt;
      map.pathEnd = model.pathEnd;
    }
  }
  ask(factory: HttpFilterFactory): void {
    this.fill(this.request, requestModel);
    this.filter = factory(this.stream);
    const result = this.filter.onRequestHeaders?.(this.request, true);
    if (result !== undefined && "then" in result) result.then(this.#onSettled);
    else this.passed++;
  }
  answer(): void {
    this.fill(this.response, responseModel);
    this.response.status = 200;
    const result = this.filter!.onResponseHeaders?.(this.response, true);
    if (result !== undefined && "then" in result) result.then(this.#onSettled);
    else this.passed++;
  }
}

function round(slots: readonly Slot[], factory: HttpFilterFactory): void {
  for (const slot of slots) slot.ask(factory);
  flush();
  for (const slot of slots) slot.answer();
  flush();
  for (const slot of slots) slot.filter!.onEnd?.();
}

const nothing: HttpFilterFactory = () => ({});
const parkedFactory = parkedHttpFactory({ box: 0, use: 1, hooks: sandbox.hooks }, table);

function measure(name: string, batch: number, factory: HttpFilterFactory): number {
  const slots = Array.from({ length: batch }, () => new Slot());
  const rounds = Math.ceil(requests / batch);
  const before = process.threadCpuUsage();
  for (let k = 0; k < rounds; k++) round(slots, factory);
  const { user, system } = process.threadCpuUsage(before);
  const passed = slots.reduce((sum, slot) => sum + slot.passed, 0);
  if (passed !== rounds * batch * 2)
    throw new Error(`${name}: ${passed} hooks settled of ${rounds * batch * 2}`);
  return (user + system) / (rounds * batch);
}

measure("warm-up", 16, nothing);
measure("warm-up", 16, parkedFactory);
for (const batch of [1, 4, 16, 64]) {
  // The least of three: neighbours on the machine only ever add.
  const least = (name: string, factory: HttpFilterFactory): number =>
    Math.min(...[1, 2, 3].map(() => measure(name, batch, factory)));
  const base = least("base", nothing);
  const parked = least("parked", parkedFactory);
  console.log(
    `${String(batch).padStart(3)} streams a crossing: +${(parked - base).toFixed(2)} µs a request (loop alone ${base.toFixed(2)})`,
  );
}
console.log(
  "faults",
  sandbox.counts.faults,
  "entries",
  sandbox.counts.entries,
  "records",
  sandbox.counts.records,
);
process.exit(0);
