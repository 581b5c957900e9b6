import { expect, test } from "vitest";
import { type CpuProfile, joined } from "./profile.ts";

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
