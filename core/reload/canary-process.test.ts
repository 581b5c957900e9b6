import { afterAll, beforeAll, expect, test } from "vitest";
import { bundlePreludes } from "../packages/preludes.ts";
import type { ModuleSource, RuntimeConfig } from "../protocol.ts";
import { type Question, TrialProcess } from "../trial-process.ts";
import { CanaryProcess } from "./canary-process.ts";

/** Tells what it was asked. */
class CountedTrial extends TrialProcess {
  questions = 0;
  last: Question | undefined;
  override ask(...[question, limit]: Parameters<TrialProcess["ask"]>): Promise<unknown> {
    this.questions++;
    const noted = (session: number) => {
      this.last = question(session);
      return this.last;
    };
    return super.ask(noted, limit);
  }
}

let trial: CountedTrial;
let canary: CanaryProcess;
beforeAll(async () => {
  trial = new CountedTrial(await bundlePreludes());
  canary = new CanaryProcess(trial, () => ({ id: "", cluster: "" }));
});
afterAll(() => trial.dispose());

const sandboxed = (name: string, hash: string): ModuleSource => {
  return { package: name, group: name, code: "", filename: name, hash };
};
const CONFIG: RuntimeConfig = {
  listeners: [],
  services: [],
  node: { id: "", cluster: "" },
};
let generation = 1;

async function commit(change: {
  readonly modules?: readonly ModuleSource[];
  readonly removed?: readonly string[];
  readonly config?: RuntimeConfig;
}): Promise<number> {
  const before = trial.questions;
  generation++;
  const { modules = [], removed = [], config } = change;
  expect(await canary.prepare({ generation, modules, removed, config })).toEqual([]);
  expect(canary.serviceListeners()).toEqual([]);
  await canary.commit(generation);
  return trial.questions - before;
}

test("is asked of new code of a sandboxed package only while it does not know the package, or the config changes", async () => {
  canary.adopt({ generation, modules: [sandboxed("http/a", "1")], removed: [], config: CONFIG });
  // What services bring along is not known yet.
  expect(await commit({ modules: [sandboxed("http/a", "2")] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "3")] })).toBe(0);
  expect(await commit({ modules: [sandboxed("http/b", "1")] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "4"), sandboxed("http/b", "2")] })).toBe(0);
  expect(await commit({ modules: [sandboxed("http/a", "5")], config: { ...CONFIG } })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "6")], removed: ["http/b"] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/b", "3")] })).toBe(1);
});

test("does not send code that its process has just read, and sends it to another process", async () => {
  const code = (word: string) =>
    `export default { kind: "network", name: "end", terminal: true, setup() { throw new Error("${word}"); } };`;
  const use = { package: "network/end", config: {}, place: "0" };
  const listener = {
    name: "main",
    address: { ip: "127.0.0.1", port: 0 },
    filterChains: [{ name: "", match: {}, filters: [use] }],
  };
  const config = { ...CONFIG, listeners: [listener] } as unknown as RuntimeConfig;
  const prepared = async (hash: string) => {
    const filename = `network/end@${hash}`;
    const source = code(hash);
    const module = { package: "network/end", group: "builtin", code: source, filename, hash };
    generation++;
    const change = { generation, modules: [module], removed: [], config };
    const refusals = await canary.prepare(change);
    await canary.abort(generation);
    const asked = trial.last as Question & { type: "prepare" };
    return {
      said: refusals[0]?.message,
      sent: asked.change.modules[0]!.code !== "",
    };
  };
  const read = (hash: string) =>
    trial.read({ id: "x", origin: "shipped", code: code(hash), filename: `network/end@${hash}` });
  await read("one");
  expect(await prepared("one")).toEqual({ said: "one", sent: false });
  expect(await prepared("two")).toEqual({ said: "two", sent: true });
  await read("three");
  trial.rest();
  expect(await prepared("three")).toEqual({ said: "three", sent: true });
});
