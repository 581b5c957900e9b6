import type { ListenerConfig, RuntimeConfig } from "../protocol.ts";
import { Engine, type EngineOptions } from "./engine.ts";
import type { GateParts } from "./gate.ts";

/** The doors of the builtin isolate: what core calls. Everything that crosses is a number, a string or shared memory. */
let engine: Engine;

export function init(
  ring: SharedArrayBuffer,
  cells: SharedArrayBuffer,
  turns: SharedArrayBuffer,
  counts: SharedArrayBuffer,
  ledger: SharedArrayBuffer,
  call: (name: string, text: string) => string | void,
  options: string,
): void {
  engine = new Engine(
    ring,
    cells,
    turns,
    counts,
    ledger,
    call,
    JSON.parse(options) as EngineOptions,
  );
}

export function run(count: number): number {
  return engine.run(count);
}

/** `namespace`: of a module that core has loaded for the package. Throws if it exports no filter. */
export function define(packageName: string, namespace: { readonly default: unknown }): void {
  engine.define(packageName, namespace.default);
}

export function defineParked(packageName: string, box: number, description: string): void {
  engine.defineParked(packageName, box, description);
}

/** `text`: JSON of { generation, changed, removed, rehearsed }; `configText`: that of a RuntimeConfig, or "". Answers JSON of Refusal[]. */
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
  return JSON.stringify(engine.extend(JSON.parse(text) as ListenerConfig[], nth));
}

/** `drain`: JSON of DrainOptions. */
export function commit(drain: string): void {
  engine.onEntered();
  engine.commit(JSON.parse(drain));
}

export function abort(): void {
  engine.onEntered();
  engine.abort();
}

export function serviceListeners(): string {
  return engine.serviceListeners();
}

/** Answers JSON of what the package's tool says. Throws what it throws. */
export function tool(packageName: string, name: string, input: string): string {
  engine.onEntered();
  return engine.tool(packageName, name, input);
}

export function onReply(text: string): void {
  engine.onEntered();
  engine.host.onReply(JSON.parse(text));
}

/** A sandbox that the chain may enter by itself: the parts of a GateParts. */
export function openGate(
  boxNumber: number,
  box: SharedArrayBuffer,
  state: SharedArrayBuffer,
  beats: SharedArrayBuffer,
  insideAt: number,
  run: GateParts["run"],
): void {
  engine.setGate(boxNumber, { box, state, beats, insideAt, mark: boxNumber, run });
}

export function closeGate(box: number): void {
  engine.setGate(box, undefined);
}

export function narrow(use: number, mask: number): void {
  engine.narrow(use, mask);
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
  engine.drain();
}

/** JSON of the names of listeners, and of DrainOptions. */
export function drainListeners(names: string, drain: string): void {
  engine.onEntered();
  engine.drainListeners(JSON.parse(names), JSON.parse(drain));
}

export function activeConnections(): number {
  return engine.activeConnections();
}

export function flushFiles(): number {
  return engine.flushFiles();
}
