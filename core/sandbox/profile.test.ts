import { expect, test } from "vitest";
import type { DebugChannel, SandboxIsolate } from "./isolate.ts";
import { type CpuProfile, joined, SandboxProfile } from "./profile.ts";

const frame = (functionName: string) => ({
  functionName,
  scriptId: "1",
  url: "x",
  lineNumber: 0,
  columnNumber: 0,
});

test("slices of a profile become one: the same calls are one, and time goes on", () => {
  const slice = (startTime: number, names: string[]): CpuProfile => ({
    nodes: [
      { id: 1, callFrame: frame("(root)"), hitCount: 0, children: names.map((_, k) => k + 2) },
      ...names.map((name, k) => ({ id: k + 2, callFrame: frame(name), hitCount: 1 })),
    ],
    startTime,
    endTime: startTime + 100,
    samples: names.map((_, k) => k + 2),
    timeDeltas: names.map(() => 10),
  });
  const whole = joined([slice(1000, ["a", "b"]), slice(1200, ["b", "c"])]);
  expect(
    whole.nodes.map(({ id, callFrame, hitCount }) => [id, callFrame.functionName, hitCount]),
  ).toEqual([
    [1, "(root)", 0],
    [2, "a", 1],
    [3, "b", 2],
    [4, "c", 1],
  ]);
  expect(whole).toMatchObject({
    startTime: 1000,
    endTime: 1300,
    samples: [2, 3, 3, 4],
    timeDeltas: [10, 10, 190, 10],
  });
});

test("a profile whose isolate ends is told so, and does not wait for an answer for ever", async () => {
  let onClosed = () => {};
  const isolate = {
    disposed: false,
    debug(_onMessage: unknown, closed: () => void): DebugChannel {
      onClosed = closed;
      return { isolate: this as never, send: () => {}, close: () => closed() };
    },
  };
  const starting = SandboxProfile.start(isolate as unknown as SandboxIsolate, "cpu");
  onClosed();
  await expect(starting).rejects.toThrow("was replaced");
});
