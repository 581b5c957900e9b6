import type { ListenerConfig, RuntimeConfig } from "../protocol.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { GateParts } from "./gate.ts";
import type { RegexModule } from "./regexes.ts";

/**
 * Entry of the builtin isolate: the functions that core calls (core/builtin.ts). Arguments and answers are numbers, strings or
 * shared memory. What each does is told at the method of Engine or Generations with that name.
 */
let engine: Engine;

/**
 * Called once, before all else. `ring`: ring.ts; `cells`: stats; `turns`: `cx.turns` counters and shared cells; `counts` and
 * `ledger`: shared-counts.ts; `chunks`: line-chunks.ts; `call`: the isolate's calls to core; `options`: JSON of EngineOptions.
 */
export function init(
  ring: SharedArrayBuffer,
  cells: SharedArrayBuffer,
  turns: SharedArrayBuffer,
  counts: SharedArrayBuffer,
  ledger: SharedArrayBuffer,
  chunks: SharedArrayBuffer,
  call: (name: string, text: string) => string | void,
  options: string,
): void {
  engine = new Engine(
    ring,
    cells,
    turns,
    counts,
    ledger,
    chunks,
    call,
    JSON.parse(options) as EngineOptions,
  );
}

export function run(count: number): number {
  return engine.run(count);
}

/** `namespace`: the exports of the module that core has loaded for the package. Throws if its default export is no filter. */
export function define(packageName: string, namespace: { readonly default: unknown }): void {
  engine.define(packageName, namespace.default);
}

export function defineRegexes(namespace: RegexModule): void {
  engine.regexes.define(namespace);
}

export function defineParked(packageName: string, box: number, description: string): void {
  engine.defineParked(packageName, box, description);
}

/**
 * `text`: JSON of { generation, changed, removed, rehearsed }. `configText`: JSON of a RuntimeConfig; "" if only code changes.
 * Answers JSON of Refusal[].
 */
export function prepare(text: string, configText: string): string {
  engine.onEntered();
  const {
    generation,
    changed,
    removed,
    rehearsed = true,
  } = JSON.parse(text) as {
    generation: number;
    changed: string[];
    removed: string[];
    rehearsed?: boolean;
  };
  const config = configText === "" ? undefined : (JSON.parse(configText) as RuntimeConfig);
  return JSON.stringify(engine.prepare(generation, changed, removed, config, rehearsed));
}

/** `text`: JSON of ListenerConfig[]. Answers JSON of Refusal[]. */
export function extend(text: string, nth: number): string {
  engine.onEntered();
  return JSON.stringify(engine.generations.extend(JSON.parse(text) as ListenerConfig[], nth));
}

/** `drain`: JSON of DrainOptions. */
export function commit(drain: string): void {
  engine.onEntered();
  engine.generations.commit(JSON.parse(drain));
}

export function abort(): void {
  engine.onEntered();
  engine.generations.abort();
}

/** Answers JSON of Envoy's Listeners. */
export function serviceListeners(): string {
  return JSON.stringify(engine.generations.serviceListeners());
}

/** Answers JSON of the tool's result. Throws what the tool throws. */
export function tool(packageName: string, name: string, input: string): string {
  engine.onEntered();
  return engine.tool(packageName, name, input);
}

/** Core's answer to an operation. `text`: JSON of { call, value, error? }. */
export function onReply(text: string): void {
  engine.onEntered();
  engine.host.onReply(JSON.parse(text));
}

/** Lets the chain enter a sandbox itself. The arguments are those of GateParts. */
export function openGate(
  boxNumber: number,
  box: SharedArrayBuffer,
  state: SharedArrayBuffer,
  beats: SharedArrayBuffer,
  insideAt: number,
  turnsAt: number,
  run: GateParts["run"],
): void {
  engine.setGate(boxNumber, { box, state, beats, insideAt, turnsAt, mark: boxNumber, run });
}

/** The sandbox has ended. */
export function closeGate(box: number): void {
  engine.setGate(box, undefined);
}

export function narrow(use: number, mask: number): void {
  engine.narrow(use, mask);
}

export function confine(use: number, part: number, isConfined: boolean): void {
  engine.confine(use, part, isConfined);
}

export function learnPolicy(use: number, told: string): void {
  engine.learnPolicy(use, told);
}

export function fetch(box: number, text: string, bytes: string): void {
  engine.onEntered();
  engine.fetchFor(box, text, bytes);
}

export function onPublished(topic: string, text: string): void {
  engine.onEntered();
  engine.topics.onPublished(topic, text);
}

export function drain(): void {
  engine.onEntered();
  engine.generations.drain();
}

/** `names`: JSON of the listeners' names; `drain`: JSON of DrainOptions. */
export function drainListeners(names: string, drain: string): void {
  engine.onEntered();
  engine.generations.drainListeners(JSON.parse(names), JSON.parse(drain));
}

export function activeConnections(): number {
  return engine.generations.activeConnections();
}

export function flushFiles(): number {
  return engine.flushFiles();
}
