import { expect, it } from "vitest";
import { GatheredLines } from "./gathered-lines.ts";
import { borrowed, giveBack, lineMemory } from "./line-buffer.ts";

interface Sent {
  readonly path: string;
  readonly pieces: readonly (readonly [time: number, text: string])[];
}

function start(flushBytes = 1000) {
  const memory = lineMemory({ ms: 1, bytes: flushBytes });
  const sent: Sent[] = [];
  const lent: Uint8Array[] = [];
  const gathered = new GatheredLines(({ path, bytes: told, marks }) => {
    const bytes = borrowed(told, memory);
    const pieces = [];
    for (let k = 0; k < marks.length; k += 2)
      pieces.push([
        marks[k]!,
        `${Buffer.from(bytes.subarray(marks[k + 1], marks[k + 3]))}`,
      ] as const);
    sent.push({ path, pieces });
    lent.push(bytes);
  }, memory);
  const lines = {
    add: (path: string, text: string, marks: number[]) =>
      gathered.add(path, Buffer.from(text), marks),
    flush: (path: string) => gathered.flush(path),
    flushAll: () => gathered.flushAll(),
  };
  return { lines, sent, lent };
}

it("sends each file's lines in one piece when they are flushed, with the times at which they were logged", () => {
  const { lines, sent } = start();
  lines.add("a", "one\ntwo\n", [1, 0, 2, 4]);
  lines.add("b", "x\n", [3, 0]);
  lines.add("a", "three\n", [4, 0]);
  expect(sent).toEqual([]);
  lines.flush("a");
  lines.flush("a");
  lines.flushAll();
  expect(sent).toEqual([
    {
      path: "a",
      pieces: [
        [1, "one\n"],
        [2, "two\n"],
        [4, "three\n"],
      ],
    },
    { path: "b", pieces: [[3, "x\n"]] },
  ]);
});

it("sends the first lines at once, and further ones when main asks or many wait", () => {
  const { lines, sent } = start();
  const log = (text: string) => {
    lines.add("a", text, [1, 0]);
    lines.flush("a");
  };
  const texts = () => sent.flatMap(({ pieces }) => pieces.map(([, text]) => text));
  for (const text of ["1\n", "2\n", "3\n"]) log(text);
  expect(texts()).toEqual(["1\n"]);
  lines.flushAll();
  expect(texts()).toEqual(["1\n", "2\n", "3\n"]);
  log("4\n");
  expect(texts()).toHaveLength(4);
  for (let k = 0; k < 15; k++) log("x\n");
  expect(texts()).toHaveLength(4);
  log("x\n");
  expect(texts()).toHaveLength(20);
});

it("sends what does not fit together one after the other", () => {
  const { lines, sent } = start(1000);
  const long = `${"x".repeat(20_000)}\n`;
  const longer = `${"é".repeat(100_000)}\n`;
  for (const text of ["short\n", long, longer]) lines.add("a", text, [1, 0]);
  lines.flushAll();
  expect(sent.flatMap(({ pieces }) => pieces.map(([, text]) => text))).toEqual([
    "short\n",
    long,
    longer,
  ]);
});

it("uses memory again once it was given back, and no sooner", () => {
  const { lines, lent } = start();
  for (let k = 0; k < 60; k++) {
    lines.add("a", `${k}\n`, [k, 0]);
    lines.flushAll();
    if (k >= 40) giveBack(lent[k]!);
  }
  expect(lent.slice(0, 40).map((bytes) => Buffer.from(bytes).toString())).toEqual(
    Array.from({ length: 40 }, (_, k) => `${k}\n`),
  );
  for (const bytes of lent) giveBack(bytes);
  lines.add("a", "again\n", [0, 0]);
  lines.flushAll();
  expect(lent.at(-1)!.buffer).toBe(lent[0]!.buffer);
});
