import { afterAll, beforeAll, expect, test } from "vitest";
import { bundlePreludes } from "../packages/preludes.ts";
import type { ModuleSource, RuntimeConfig } from "../protocol.ts";
import { TrialProcess } from "../trial-process.ts";
import { CanaryProcess } from "./canary-process.ts";

/** Tells how many questions it was asked. */
class CountedTrial extends TrialProcess {
  questions = 0;
  override ask(...question: Parameters<TrialProcess["ask"]>): Promise<unknown> {
    this.questions++;
    return super.ask(...question);
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
const config: RuntimeConfig = {
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
  canary.adopt({ generation, modules: [sandboxed("http/a", "1")], removed: [], config });
  // What services bring along is not known yet.
  expect(await commit({ modules: [sandboxed("http/a", "2")] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "3")] })).toBe(0);
  expect(await commit({ modules: [sandboxed("http/b", "1")] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "4"), sandboxed("http/b", "2")] })).toBe(0);
  expect(await commit({ modules: [sandboxed("http/a", "5")], config: { ...config } })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/a", "6")], removed: ["http/b"] })).toBe(1);
  expect(await commit({ modules: [sandboxed("http/b", "3")] })).toBe(1);
});
