/**
 * Measures sandboxed filters; each reads a request header and sets one header on the request and one on the response. The chains
 * have one, two or five filters of one package, which share a sandbox, or five of different packages, with a sandbox each. All
 * but the sockets and the builtin isolate is real: stubs, records, crossings, verdicts. Prints this thread's CPU and the entries
 * into sandboxes per request.
 *
 *   node test/bench/sandbox.ts [requests]
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
import { collectGarbage } from "../../core/admin/garbage.ts";
import { Gate, type GateParts } from "../../core/inside/gate.ts";
import { type ParkPorts, ParkTable } from "../../core/inside/parked.ts";
import { parkedHttpFactory } from "../../core/inside/parked-http.ts";
import { GATE } from "../../core/inside/sandbox/layout.ts";
import { Watchdog } from "../../core/isolate.ts";
import { IsolateNumbers } from "../../core/isolate-numbers.ts";
import { imageCode } from "../../core/sandbox/fake-worker.ts";
import { SandboxImage } from "../../core/sandbox/image.ts";
import type { SandboxIsolate } from "../../core/sandbox/isolate.ts";
import { Sandbox } from "../../core/sandbox/sandbox.ts";
import { Supply } from "../../core/sandbox/supply.ts";

const requests = Number(process.argv[2] ?? 20_000);
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
  park: (box, token, at, size) => void commands.push(box, token, at, size),
  forget: (box, token) => void commands.push(box, token, -1, 0),
  again: () => {},
  malformed: (_box, reason) => {
    throw new Error(reason);
  },
  uncaught: (_box, error) => {
    throw error;
  },
  thrown: (error) => {
    throw error;
  },
  returned: () => {},
  inCrossing: false,
  hasRoom: true,
  now: 0,
};
const watchdog = new Watchdog();
const table = new ParkTable(ports);
const image = new SandboxImage(await imageCode());
const supply = new Supply(image, new IsolateNumbers(1));
const gates: (readonly [SandboxIsolate, Gate])[] = [];
const PLACES = 5;

async function build(box: number, uses: number): Promise<Sandbox> {
  const sandbox = new Sandbox({
    package: `http/bench${box}`,
    worker: 0,
    node: { id: "", cluster: "" },
    supply,
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
        beats: new SharedArrayBuffer(8),
        insideAt: 0,
        turnsAt: 1,
        mark: 0,
        run: isolate.entry as GateParts["run"],
      };
      gates[box] = [isolate, new Gate(parts, table)];
    },
    onFault: (fault) => console.log(fault.reason),
    onLog: () => {},
    stats: { cells: new Float64Array(16), define: () => -1 },
  });
  const places = Array.from({ length: uses }, (_, k) => ({ id: k + 1, config: {}, place: "" }));
  await sandbox.prepare(places);
  return sandbox;
}

/** The first sandbox holds PLACES filters of one package; each other sandbox holds one filter of another package. */
const sandboxes: Sandbox[] = [];
for (let box = 0; box < PLACES; box++) sandboxes.push(await build(box, box === 0 ? PLACES : 1));

/** Runs `events` as one crossing into the builtin isolate, then delivers commands and verdicts until none are left. */
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
    for (let k = 0; k < commands.length; k += 4) {
      const sandbox = sandboxes[commands[k]!]!;
      if (commands[k + 2] === -1) sandbox.forget(commands[k + 1]!);
      else sandbox.park(commands[k + 1]!, commands[k + 2]!, commands[k + 3]!);
    }
    commands.length = 0;
    for (const sandbox of sandboxes) if (sandbox.wantsEntry()) sandbox.enter();
  } while (events.length > 0);
  arena = ARENA;
  answers = ANSWERS;
}

/** Fills `map` with the spans of a head whose lines begin at `from`; `Slot.fill` copies them for each stream. */
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
  filters: readonly HttpFilter[] = [];
  passed = 0;
  #at = 0;
  readonly #onAsked = (): void => this.#askOn();
  readonly #onAnswered = (): void => this.#answerOn();

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
  ask(chain: Chain): void {
    this.fill(this.request, requestModel);
    const filters = chain.map((factory) => factory(this.stream));
    for (let k = 1; k < filters.length; k++) filters[k - 1]!.meets?.(filters[k]!);
    this.filters = filters;
    this.#at = 0;
    this.#askOn();
  }
  #askOn(): void {
    while (this.#at < this.filters.length) {
      const result = this.filters[this.#at++]!.onRequestHeaders?.(this.request, true);
      if (result !== undefined && "then" in result) return void result.then(this.#onAsked);
    }
    this.passed++;
  }
  answer(): void {
    this.fill(this.response, responseModel);
    this.response.status = 200;
    this.#answerOn();
  }
  #answerOn(): void {
    while (this.#at > 0) {
      const result = this.filters[--this.#at]!.onResponseHeaders?.(this.response, true);
      if (result !== undefined && "then" in result) return void result.then(this.#onAnswered);
    }
    this.passed++;
  }
}

type Chain = readonly HttpFilterFactory[];

function round(slots: readonly Slot[], chain: Chain): void {
  crossing(() => {
    for (const slot of slots) {
      slot.ask(chain);
      table.relieveGates();
    }
  });
  crossing(() => {
    for (const slot of slots) {
      slot.answer();
      table.relieveGates();
    }
  });
  for (const slot of slots) for (const filter of slot.filters) filter.onEnd?.();
}

const stub = (box: number, use: number): HttpFilterFactory =>
  parkedHttpFactory({ box, use, hooks: sandboxes[box]!.hooks }, table);
const places = Array.from({ length: PLACES }, (_, k) => stub(0, k + 1));
const CHAINS: readonly (readonly [name: string, chain: Chain])[] = [
  ["one filter", places.slice(0, 1)],
  ["two of one package", places.slice(0, 2)],
  ["five of one package", places],
  ["five packages", Array.from({ length: PLACES }, (_, box) => stub(box, 1))],
];

const entries = (): number => sandboxes.reduce((sum, { counts }) => sum + counts.entries, 0);

/** Returns CPU in µs and the number of entries into sandboxes, both per request. */
function measure(
  name: string,
  batch: number,
  chain: Chain,
): readonly [us: number, entered: number] {
  const slots = Array.from({ length: batch }, () => new Slot());
  const rounds = Math.ceil(requests / batch);
  for (const sandbox of sandboxes) sandbox.wantsEntry();
  const enteredBefore = entries();
  const before = process.threadCpuUsage();
  for (let k = 0; k < rounds; k++) round(slots, chain);
  const { user, system } = process.threadCpuUsage(before);
  for (const sandbox of sandboxes) sandbox.wantsEntry();
  const passed = slots.reduce((sum, slot) => sum + slot.passed, 0);
  if (passed !== rounds * batch * 2)
    throw new Error(`${name}: ${passed} heads came through of ${rounds * batch * 2}`);
  const all = rounds * batch;
  return [(user + system) / all, (entries() - enteredBefore) / all];
}

/** Returns the least CPU of five runs, as other work on the machine only adds to it, and the entries of the first run. */
function least(name: string, batch: number, chain: Chain): readonly [us: number, entered: number] {
  const runs = Array.from({ length: 5 }, () => measure(name, batch, chain));
  return [Math.min(...runs.map(([us]) => us)), runs[0]![1]];
}

function compare(way: string): void {
  for (const [name, chain] of CHAINS) {
    measure("warm-up", 16, []);
    measure("warm-up", 16, chain);
    for (const batch of [1, 4, 16, 64]) {
      const [base] = least("base", batch, []);
      const [us, entered] = least(name, batch, chain);
      console.log(
        `${way}, ${name}, ${String(batch).padStart(2)} streams a crossing: +${(us - base).toFixed(2)} µs a request in ${entered.toFixed(2)} entries (loop alone ${base.toFixed(2)})`,
      );
    }
  }
}
compare("through core");
for (const [box, [isolate, gate]] of gates.entries()) {
  table.setGate(box, gate);
  isolate.gate[GATE.OPEN] = 1;
}
compare("by the gate");
console.log(
  "faults",
  sandboxes.reduce((sum, { counts }) => sum + counts.faults, 0),
);
for (const sandbox of sandboxes) sandbox.dispose();
await watchdog.stop();
// isolated-vm crashes a process that exits during a garbage collection.
collectGarbage();
process.exit(0);
