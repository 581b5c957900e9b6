import { expect, it } from "vitest";
import { createRing, EVENT, WORD } from "../inside/ring.ts";
import { Crossing } from "./crossing.ts";

/**
 * A crossing whose isolate notes the kinds of the events that it is told, crossing by crossing (`told`), and the word of memory that
 * each event names (`named`).
 */
function start() {
  const ring = createRing({ events: 8, commands: 8, segments: 2, slots: 2 });
  const words = new Int32Array(ring);
  const told: number[][] = [];
  const named: number[] = [];
  const crossing = new Crossing(ring, (count) => {
    const at = words[WORD.EVENTS]! >> 2;
    told.push(Array.from({ length: count }, (_, k) => words[at + 4 * k]!));
    for (let k = 0; k < count; k++) named.push(words[words[at + 4 * k + 2]! >> 2]!);
    words[WORD.CONSUMED] = count;
    words[WORD.AGAIN] = 0;
    words[WORD.WAKE_IN] = -1;
    return 0;
  });
  crossing.onLost = (error) => {
    throw error;
  };
  return { crossing, told, named, words };
}

it("what a sandbox finds for the chain when it is asked goes to it in the same flush, though nobody enters the sandbox", () => {
  const { crossing, told } = start();
  let found = true;
  crossing.visit({
    wantsEntry: () => {
      if (found) crossing.push(EVENT.VERDICT, 1, 0, 0);
      found = false;
      return false;
    },
    enter: () => {
      throw new Error("nobody has asked for an entry");
    },
  });
  crossing.poke();
  expect(told).toEqual([[], [EVENT.VERDICT]]);
});

it("more events than the ring holds take several crossings of one flush", () => {
  const { crossing, told } = start();
  for (let k = 0; k < 20; k++) crossing.push(EVENT.VERDICT, k, 0, 0);
  crossing.flush();
  expect(told.map((kinds) => kinds.length)).toEqual([8, 8, 4]);
});

it("answers of a sandbox that is entered again and again lie in memory that nothing else is written to before they are told", async () => {
  const { crossing, named, words } = start();
  const count = 60;
  let entries = 0;
  crossing.visit({
    wantsEntry: () => entries < count,
    enter: () => {
      const at = crossing.place(8);
      words[at >> 2] = ++entries;
      crossing.push(EVENT.VERDICT, 1, at, 8);
    },
  });
  crossing.poke();
  // What a socket reads before the next flush.
  const read = crossing.place(count * 8);
  words.fill(-1, read >> 2, (read >> 2) + count * 2);
  while (named.length < count) await new Promise((resolve) => setImmediate(resolve));
  expect(named).toEqual(Array.from({ length: count }, (_, k) => k + 1));
});

it("what was asked of the isolate outside a flush can wait for the end of the poll phase, and needs no event then", async () => {
  const { crossing, told } = start();
  crossing.pokeSoon();
  crossing.pokeSoon();
  expect(told).toEqual([]);
  await new Promise(setImmediate);
  expect(told).toEqual([[]]);
});
