/**
 * What one dropped-in filter costs: it reads a request header and sets one on the request and the response. Everything but the
 * sockets and the builtin isolate is real: stubs, records, crossings, verdicts. Prints CPU of this thread per request.
 *
 *   node --no-node-snapshot --no-maglev --no-use-osr test/bench/sandbox.ts [requests]
 */
import {
  FLAG,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  headerName,
  RequestHeaders,
  ResponseHeaders,
  SPAN,
} from "@tsproxy/sdk";
import { collectGarbage } from "../../core/garbage.ts";
import { Gate, type GateParts } from "../../core/inside/gate.ts";
import { type ParkPorts, ParkTable } from "../../core/inside/parked.ts";
import { parkedHttpFactory } from "../../core/inside/parked-http.ts";
import { GATE } from "../../core/inside/sandbox/layout.ts";
import { Watchdog } from "../../core/isolate.ts";
import { imageCode } from "../../core/sandbox/fake-worker.ts";
import { SandboxImage } from "../../core/sandbox/image.ts";
import type { SandboxIsolate } from "../../core/sandbox/isolate.ts";
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

const ports: ParkPorts & { inCrossing: boolean } = {
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
  inCrossing: false,
  hasRoom: true,
  now: 0,
};
const watchdog = new Watchdog();
const table = new ParkTable(ports);
let gate: [SandboxIsolate, Gate] | undefined;
const image = new SandboxImage(await imageCode());
const sandbox = new Sandbox({
  package: "http/bench",
  worker: 0,
  node: { id: "", cluster: "" },
  supply: new Supply(image),
  watchdog,
  module: { code: CODE, filename: "bench.js" },
  memory: buffer,
  place: (size) => {
    const at = answers;
    answers += (size + 7) & ~7;
    return at;
  },
  onVerdict: (token, at, size) => void events.push(token, at, size),
  onWork: () => {},
  onGate: (isolate) => {
    const parts = {
      box: isolate.memory.box,
      state: isolate.gate.buffer as SharedArrayBuffer,
      beats: new SharedArrayBuffer(4),
      insideAt: 0,
      mark: 0,
      run: isolate.entry as GateParts["run"],
    };
    gate = [isolate, new Gate(parts, table)];
  },
  onFault: (fault) => console.log(fault.reason),
  onLog: () => {},
  stats: { cells: new Float64Array(16), define: () => -1 },
});
await sandbox.prepare([{ id: 1, config: {}, place: "" }]);

/** What comes to the chain in one crossing. */
function crossing(events: () => void): void {
  ports.inCrossing = true;
  events();
  table.enterGates();
  table.leaveGates();
  ports.inCrossing = false;
  flush();
}

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
    const s = model.spans;
    for (let i = 0; i < model.count * SPAN; i += SPAN)
      map.addSpan(s[i]!, s[i + 1]!, s[i + 2]!, s[i + 3]!, s[i + 4]!, s[i + 5]! & FLAG.KNOWN);
    map.memory = bytes;
    map.base = model.base;
    map.blockEnd = model.blockEnd;
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
  crossing(() => {
    for (const slot of slots) slot.ask(factory);
  });
  crossing(() => {
    for (const slot of slots) slot.answer();
  });
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

/** The least of three: neighbours on the machine only ever add. */
const least = (name: string, batch: number, factory: HttpFilterFactory): number =>
  Math.min(...[1, 2, 3].map(() => measure(name, batch, factory)));

function compare(way: string): void {
  measure("warm-up", 16, nothing);
  measure("warm-up", 16, parkedFactory);
  for (const batch of [1, 4, 16, 64]) {
    const base = least("base", batch, nothing);
    const parked = least(way, batch, parkedFactory);
    console.log(
      `${way}, ${String(batch).padStart(2)} streams a crossing: +${(parked - base).toFixed(2)} µs a request (loop alone ${base.toFixed(2)})`,
    );
  }
}
compare("through core");
const [isolate, ownGate] = gate!;
table.setGate(0, ownGate);
isolate.gate[GATE.OPEN] = 1;
compare("by the gate");
console.log(
  "faults",
  sandbox.counts.faults,
  "entries",
  sandbox.counts.entries,
  "records",
  sandbox.counts.records,
);
sandbox.dispose();
await watchdog.stop();
// isolated-vm breaks a process that ends in the middle of a collection.
collectGarbage();
process.exit(0);
