import http from "node:http";
import { freePort } from "../../core/command/free-port.ts";
import { address, bootstrap, direct, http as httpFilter, type Json, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

/**
 * What a hostile filter does with one request, and the outcome. `stopped`: core stops the filter, and the request gets a 500.
 * `thrown`: a limit throws inside the filter, 500. `harmless`: the request is answered. `own`: the filter breaks only its own
 * isolate, so the request is answered or gets a 500. `late`: 504. `kills`: nothing within the process stops the filter, so the
 * process ends and another one serves without the filter.
 */
export const ATTACKS = {
  endless_loop: ["stopped", "while (true) {}"],
  microtask_loop: ["stopped", "const again = () => Promise.resolve().then(again); return again();"],
  evil_regex: ["harmless", '/^(([a-z])+.)+[A-Z]([a-z])+$/.test("a".repeat(50_000));'],
  growing_array: ["stopped", "const a = []; for (;;) a.push(new Array(1000).fill(1));"],
  growing_map: ["stopped", "const m = new Map(); for (let k = 0; ; k++) m.set(k, { k });"],
  growing_string: ["thrown", 'let s = "x"; for (;;) s += s + Math.random();'],
  growing_typed_arrays: [
    "thrown",
    "const a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1));",
  ],
  growing_closures: [
    "stopped",
    "const a = []; for (let k = 0; ; k++) { const big = new Array(100).fill(k); a.push(() => big); }",
  ],
  resized_buffer: [
    "thrown",
    "const b = new ArrayBuffer(1, { maxByteLength: 2 ** 30 }); for (;;) { b.resize(2 ** 30); new Uint8Array(b).fill(1); }",
  ],
  sparse_object: ["stopped", "const o = {}; for (let k = 0; ; k++) o[k * 1000] = k;"],
  squared_bigint: ["kills", "let n = 2n ** 64n; for (;;) n = n * n;"],
  printed_bigint: ["kills", "(10n ** 10_000_000n).toString();"],
  huge_json: ["thrown", 'JSON.parse("[" + "[],".repeat(2e7) + "1]");'],
  huge_array_from: ["thrown", "Array.from({ length: 1e9 });"],
  huge_split: ["thrown", '"x".repeat(5e8).split("");'],
  huge_fill: ["thrown", "new Array(2 ** 31).fill(0);"],
  huge_pad: ["thrown", '"x".padStart(2 ** 29, "ab");'],
  huge_replace: ["thrown", '"a".repeat(1e7).replaceAll("a", "b".repeat(1e4));'],
  doubled_array: ["thrown", "let a = [1]; for (;;) a = a.concat(a);"],
  recursion: ["thrown", "const f = () => f() + 1; f();"],
  pollution: [
    "own",
    `Object.prototype.status = 500; Array.prototype.push = () => { throw new Error("no"); };
     Map.prototype.get = () => 7; String.prototype.charCodeAt = () => 10; Promise.prototype.then = () => {};`,
  ],
  never_settled: ["late", "return new Promise(() => {});"],
  header_injection: ["thrown", 'h.set("x-a", "1\\r\\nx-b: 2");'],
  injection_past_the_setter: [
    "stopped",
    'h.set("x-a", "1"); h.added.push("x-b", "1\\r\\nx-c: 2");',
  ],
  timers: ["thrown", "for (let k = 0; k <= 10_000; k++) setTimeout(() => {}, 1);"],
  frozen_sdk: [
    "thrown",
    '"use strict"; done.type = "reply"; globalThis.performance.now = () => NaN;',
  ],
  shared_memory: ["thrown", "new SharedArrayBuffer(1 << 28);"],
  atomics_wait: ["thrown", "Atomics.wait(new Int32Array(4), 0, 0);"],
  webassembly: ["thrown", "new WebAssembly.Memory({ initial: 65536 });"],
  stack_traces: [
    "own",
    "Error.prepareStackTrace = () => { for (;;) {} }; Error.stackTraceLimit = Infinity; null.x;",
  ],
  species: [
    "own",
    `class Bad extends Array { static get [Symbol.species]() { for (;;) {} } }
     h.added = Bad.from(["x-a", "1"]); return Bad.from([1]).map(String);`,
  ],
  thenable_proxy: ["own", "return new Proxy({}, { get() { for (;;) {} } });"],
  answer_with_getters: [
    "own",
    'return { get type() { return "reply"; }, get status() { return this.status; }, get body() { for (;;) {} } };',
  ],
  async_generators: [
    "stopped",
    "const all = []; async function* again() { for (;;) yield; } for (;;) { const g = again(); all.push(g.next()); }",
  ],
  weak_refs: [
    "stopped",
    `const ends = new FinalizationRegistry(() => {}); const kept = [];
     for (let k = 0; ; k++) { const o = { k }; kept.push(new WeakRef(o)); ends.register(o, k); }`,
  ],
  promise_chain: ["stopped", "let p = Promise.resolve(); for (;;) p = p.then(() => p);"],
  header_flood: ["own", 'for (let k = 0; k < 1e5; k++) h.append("x-" + k, "v".repeat(100));'],
  header_of_megabytes: ["own", 'h.set("x-a", "v".repeat(1 << 24));'],
  stat_flood: ["own", 'for (let k = 0; k < 1e5; k++) cx.stats.counter("flood." + k).inc();'],
  log_flood: ["own", 'for (let k = 0; k < 1e5; k++) cx.log.error("flood " + "x".repeat(1000));'],
  reach_node: [
    "harmless",
    `const seen = [typeof process, typeof Buffer, typeof ivm, typeof module, typeof fetch];
     const evil = (f) => f.constructor("return typeof process")();
     for (const f of [h.get, h.constructor, cx.fetch, stream.clearRoute, setTimeout]) seen.push(evil(f));
     if (new Set(seen).size !== 1) throw new Error(seen.join());`,
  ],
  import_node: ["thrown", `return new Function("return import('node:fs')")();`],
} as const satisfies Readonly<Record<string, readonly [Outcome, string]>>;
type Outcome = "own" | "stopped" | "thrown" | "harmless" | "late" | "kills";
export type Attack = keyof typeof ATTACKS;

function source(attack: Attack): string {
  const body = ATTACKS[attack][1];
  const isAsync = /\bawait\b/.test(body) ? "async " : "";
  return `import { defineHttpFilter, done, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "bad", config: Type.Object({}),
  setup: (config, cx) => (stream) => ({ ${isAsync}onRequestHeaders(h) { ${body} } }) });`;
}

const OFF = {
  bad: { "@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", disabled: true },
};
/** The port is given, for a process that comes after must have the same. */
const config = (port: number): Json =>
  bootstrap(
    [
      listener(
        "main",
        httpFilter(
          [direct("/bad", "passed"), { ...direct("/", "healthy"), typed_per_filter_config: OFF }],
          {},
          [{ name: "bad", config: {} }],
        ),
        { address: address(port) },
      ),
    ],
    [],
  );

export interface Report {
  /** Of the requests that met the filter. */
  readonly answers: readonly (number | string)[];
  /** Requests on the healthy route of the same worker: what was not answered 200, and how long each took. */
  readonly lost: readonly (number | string)[];
  readonly tookMs: readonly number[];
  /** The same of the second before the first of them: what this machine is able to. */
  readonly beforeMs: readonly number[];
  readonly output: string;
  /** How long nobody served, if the process ended: from the last answer of its one worker to the first of the next process's. */
  readonly awayMs: number;
}

/** Of times in rising order. */
export function p99(times: readonly number[]): number {
  return times[Math.floor(times.length * 0.99)] ?? 0;
}

/** Clients on the healthy route, and requests to the bad one. */
const CLIENTS = 4;
const PROVOCATIONS = 3;
const SETTLE_MS = 1000;

/** One proxy with one worker, live traffic on one route, the attack on another. `program`: absent, the checkout's. */
export async function attack(name: Attack, program?: string): Promise<Report> {
  const port = await freePort();
  const files = { "filters/bad.ts": source(name) };
  const proxy = await Proxy.start({
    config: config(port),
    files,
    ...(program !== undefined && { program: [program] }),
  });
  const agent = new http.Agent({ keepAlive: true, maxSockets: CLIENTS });
  let tookMs: number[] = [];
  const lost: (number | string)[] = [];
  let lastGood = performance.now();
  let awayMs = 0;
  let on = true;
  const client = async (): Promise<void> => {
    while (on) {
      const began = performance.now();
      const status = await ask(port, "/", agent);
      const now = performance.now();
      if (status === 200) {
        tookMs.push(now - began);
        if (lost.length > 0) awayMs = Math.max(awayMs, now - lastGood);
        lastGood = now;
      } else lost.push(status);
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  const clients = Array.from({ length: CLIENTS }, client);
  try {
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    const beforeMs = tookMs.sort((a, b) => a - b);
    tookMs = [];
    const answers: (number | string)[] = [];
    for (let k = 0; k < PROVOCATIONS; k++) answers.push(await provoke(port));
    // The supervisor may say so after the next process has answered.
    if (ATTACKS[name][0] === "kills") await proxy.line(/another one takes its place/);
    await new Promise((resolve) => setTimeout(resolve, SETTLE_MS));
    on = false;
    await Promise.all(clients);
    const { output } = proxy;
    tookMs.sort((a, b) => a - b);
    return { answers, lost, tookMs, beforeMs, output, awayMs };
  } finally {
    on = false;
    agent.destroy();
    await proxy.stop();
  }
}

/** While no process serves, the next one is waited for. */
async function provoke(port: number): Promise<number | string> {
  for (;;) {
    const answer = await ask(port, "/bad");
    if (answer !== "ECONNREFUSED") return answer;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

function ask(port: number, path: string, agent?: http.Agent): Promise<number | string> {
  return new Promise((resolve) => {
    const request = http.get(
      { host: "127.0.0.1", port, path, agent: agent ?? false },
      (response) => {
        response.resume();
        response.on("end", () => resolve(response.statusCode ?? 0));
      },
    );
    request.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  });
}
