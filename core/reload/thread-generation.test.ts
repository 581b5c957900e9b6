import { expect, it } from "vitest";
import type { ModuleSource, ThreadConfig } from "../protocol.ts";
import { changedBy, changedPackages, type Live, withCodeOf } from "./thread-generation.ts";

function module(name: string, hash: string, group = "builtin"): ModuleSource {
  return {
    package: name,
    group,
    hash,
    filename: name,
    code: new Uint8Array(new SharedArrayBuffer(0)),
  };
}
const [before, after] = ["before", "after"].map((text): ThreadConfig => ({ text, listeners: [] }));
const hashes = ({ modules }: Live) => [...modules].map(([name, { hash }]) => `${name} ${hash}`);

it("a change without a config leaves the one that runs", () => {
  const first = changedBy(
    { modules: new Map(), config: undefined },
    [module("a", "1"), module("b", "1")],
    [],
    before,
  );
  const second = changedBy(first, [module("a", "2")], ["b"], undefined);
  expect([hashes(first), hashes(second)]).toEqual([["a 1", "b 1"], ["a 2"]]);
  expect(second.config).toBe(before);
});

it("what the isolate of the shipped filters runs is blamed and taken back, sandboxes are not", () => {
  const old = changedBy(
    { modules: new Map(), config: undefined },
    [module("a", "1"), module("same", "1"), module("mine", "1", "mine")],
    [],
    before,
  );
  const more = [module("a", "2"), module("mine", "2", "mine"), module("new", "2")];
  const now = changedBy(old, more, [], after);
  const blamable = changedPackages(old, now);
  expect(blamable).toEqual(["a", "new"]);
  const back = withCodeOf(old, now, blamable);
  expect(hashes(back)).toEqual(["a 1", "same 1", "mine 2"]);
  expect(back.config).toBe(before);
});
