import { expect, test } from "vitest";
import { Repeats } from "./repeats.ts";

test("what goes on is told at once, then less and less often, once a minute in the end, with its number", () => {
  let now = 0;
  const told: [second: number, times: number | undefined][] = [];
  const repeats = new Repeats(() => now);
  for (; now < 250_000; now += 100)
    repeats.once("fault", ({ times }) => told.push([now / 1000, times]));
  expect(told.map(([second]) => second)).toEqual([0, 1, 3, 7, 15, 31, 63, 123, 183, 243]);
  expect([told[0]![1], told[1]![1], told.at(-1)![1]]).toEqual([undefined, 10, 600]);
});

test("what comes now and then is told each time, and another message at once", () => {
  let now = 0;
  const told: string[] = [];
  const repeats = new Repeats(() => now);
  const say = (key: string): void => repeats.once(key, () => told.push(`${key} at ${now}`));
  for (; now <= 4000; now += 2000) say("a");
  say("b");
  expect(told).toEqual(["a at 0", "a at 2000", "a at 4000", "b at 6000"]);
});
