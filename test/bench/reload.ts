/**
 * Milliseconds from a save to the first answer by the new code on all workers, and requests that failed meanwhile.
 *
 *   node test/bench/reload.ts [router edits] [dropped-in edits] [config edits] [--rest seconds] [--clients 64] [--pause 300]      (100 100 200)
 *
 * The load: clients that open a connection for each request, as fast as they are answered. An edit follows so many ms after the
 * last has arrived. With `--pause 0` each also waits for what the one before has left to be done: spare isolates are made anew.
 * Memory is that after a rest without clients, before the edits and after them.
 *
 * Bars: p95 of the router 150 ms, of the dropped-in filter 60; after 1,000 edits of the router 60 MiB more, of the filter 15.
 */
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { type Edited, Load, Workbench } from "../integration/reloading.ts";

const WORKERS = 2;
const { values, positionals } = parseArgs({
  options: {
    // What a busy time leaves behind is given back after 30 s, the bundler's process after 60.
    rest: { type: "string", default: "150" },
    clients: { type: "string", default: "64" },
    pause: { type: "string", default: "300" },
  },
  allowPositionals: true,
});
const [router = 100, filter = 100, config = 200] = positionals.map(Number);

const bench = await Workbench.open(WORKERS);
process.on("uncaughtException", (error) => {
  console.log(error.message, bench.proxy.output.split("\n").slice(-12).join("\n"));
  void bench.close().finally(() => process.exit(1));
});
// Heaps find their size, and compiled code its files, first.
let load = newLoad();
let before = memory();
for (const what of ["router", "filter", "config"] as const) await measure(what, 10);
await rest();
before = memory();
load = newLoad();
const started = performance.now();
for (const [what, edits] of [
  ["router", router],
  ["filter", filter],
  ["config", config],
] as const)
  if (edits > 0) report(what, await measure(what, edits));
const seconds = (performance.now() - started) / 1000;
await rest();
console.log(`memory after ${values.rest} quiet seconds: ${grown()}`);
await bench.close();
console.log(
  `${load.requests} requests (${Math.round(load.requests / seconds)}/s), ${load.failures.length} failed`,
);
for (const failure of load.failures.slice(0, 5)) console.log(`failed: ${JSON.stringify(failure)}`);
if (load.failures.length > 0)
  for (const line of bench.proxy.output
    .split("\n")
    .filter((l) => l.includes("fault:"))
    .slice(-5))
    console.log(line);
const lost = bench.proxy.lines.filter(({ msg }) => msg.includes("isolate of the shipped filters"));
for (const { msg } of lost) console.log(msg);
process.exit(load.failures.length === 0 && lost.length === 0 ? 0 : 1);

function newLoad(): Load {
  return new Load(bench.port, Number(values.clients));
}

async function rest(): Promise<void> {
  await load.stop();
  await delay(Number(values.rest) * 1000);
}

async function measure(what: Edited, edits: number): Promise<number[]> {
  const took: number[] = [];
  for (let n = 0; n < edits; n++) {
    if (n > 0 && n % 100 === 0) console.log(`${what}: ${n} edits, memory ${grown()}`);
    // A machine that stood still may have refused one, as its setup took too long: it is saved again.
    took.push(await arrival(what).catch(() => arrival(what)));
    await delay(Number(values.pause));
  }
  return took;
}

function arrival(what: Edited): Promise<number> {
  const version = bench.edit(what);
  return load.untilAllWorkers(WORKERS, (seen) => seen[what] === version);
}

/** The processes that build and try changes come and go, so that all together may well end below the start. */
function memory() {
  const { proxy } = bench;
  const all = proxy.tree();
  return {
    serving: proxy.rss(proxy.processes().slice(0, 1)),
    all: proxy.rss(all),
    count: all.length,
  };
}

function grown(): string {
  const now = memory();
  const mib = (bytes: number) => `${bytes < 0 ? "" : "+"}${(bytes / 2 ** 20).toFixed(0)} MiB`;
  return (
    `${mib(now.serving - before.serving)} in the process that serves, ` +
    `${mib(now.all - before.all)} in all (${before.count} processes, now ${now.count})`
  );
}

function report(what: Edited, took: readonly number[]): void {
  const sorted = took.toSorted((a, b) => a - b);
  const at = (quantile: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * quantile))] ?? NaN;
  const figures = [0.5, 0.95, 0.99].map((q) => `p${q * 100} ${at(q).toFixed(0)}`).join(", ");
  console.log(
    `${what}: ${took.length} edits, save -> all workers in ms: ${figures}, max ${at(1).toFixed(0)}; ` +
      `memory ${grown()}`,
  );
}
