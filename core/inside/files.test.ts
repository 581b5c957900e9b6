import { compileFormat } from "@tsproxy/sdk";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { FileTable } from "./files.ts";
import { Host } from "./host.ts";
import { chunkAt, chunkMemory } from "./line-chunks.ts";
import { ScopedStats, StatsTable } from "./stats.ts";
import { TimerWheel } from "./timers.ts";

// Flushes come at moments of the clock, which stands still here while the wheel turns.
beforeEach(() => vi.useFakeTimers({ toFake: ["Date"], now: 0 }));
afterEach(() => vi.useRealTimers());

/** What core is told, with the bytes of the lines in the place of where they lie. */
function start(flush = { ms: 10_000, bytes: 64 * 1024 }) {
  const chunks = chunkMemory();
  const told: string[][] = [];
  const host = new Host((name, text) => {
    const [path = "", at, size, marked] = text.split("\0");
    if (name === "lines") {
      const { lines, marks } = chunkAt(chunks, Number(at));
      const starts = marks.subarray(0, Number(marked)).filter((_, k) => k % 2 === 1);
      const pieces = [...starts].map((from, k) =>
        Buffer.from(lines.subarray(from, starts[k + 1] ?? Number(size))).toString(),
      );
      told.push([path, ...pieces]);
    } else if (name === "append" && size !== "") told.push([path, size!]);
    else if (name === "flush") told.push([path]);
  });
  const wheel = new TimerWheel(
    () => {},
    () => {},
  );
  const stats = new ScopedStats(new StatsTable(new Float64Array(4096), () => {}), "");
  return { files: new FileTable(host, wheel, stats, chunks, flush), wheel, told };
}

const letters = (count: number) => `${"x".repeat(count - 1)}\n`;

it("leaves lines in shared memory, apart for each moment, until they are flushed", () => {
  const { files, wheel, told } = start();
  const file = files.open("/a");
  file.append("one é\n");
  file.append("two\n");
  wheel.advance(5);
  file.append("three\n");
  expect(told).toEqual([]);
  files.flush();
  files.flush();
  expect(told).toEqual([["/a", "one é\ntwo\n", "three\n"], ["/a"]]);
});

it("tells core of lines that fill the memory, and passes longer ones as text", () => {
  const { files, told } = start();
  const file = files.open("/a");
  const [line, long] = [letters(20_000), letters(50_000)];
  file.append(line);
  file.append(line);
  file.append(long);
  expect(told).toEqual([["/a", line], ["/a", line], ["/a", long], ["/a"]]);
});

it("writes a line anew that did not fit behind the others", () => {
  const { files, told } = start({ ms: 10_000, bytes: 256 * 1024 });
  const file = files.open("/a");
  const [line, long] = [letters(20_000), letters(30_000)];
  const source = { info: {} as never, request: undefined, response: undefined };
  for (const text of [line, line, long, line]) file.print(compileFormat(text), source);
  files.flush();
  expect(told).toEqual([["/a", line], ["/a", line], ["/a", long], ["/a", line], ["/a"]]);
});

it("tells core of lines at very many moments before their marks run out", () => {
  const { files, wheel, told } = start();
  const file = files.open("/a");
  for (let k = 1; k <= 300; k++) {
    wheel.advance(k);
    file.append(`${k}\n`);
  }
  files.flush();
  const pieces = told.flatMap(([, ...lines]) => lines);
  expect(pieces).toEqual(Array.from({ length: 300 }, (_, k) => `${k + 1}\n`));
  expect(told.map(({ length }) => length - 1)).toEqual([256, 44, 0]);
});

it("takes back the beginning of a line whose format failed", () => {
  const { files, told } = start();
  const file = files.open("/a");
  const failing = {
    format: () => "",
    write(_source: unknown, line: { text(text: string): void }) {
      line.text("half");
      throw new Error("no");
    },
  };
  expect(() => file.print(failing, {} as never)).toThrow("no");
  file.append("whole\n");
  files.flush();
  expect(told).toEqual([["/a", "whole\n"], ["/a"]]);
});

it("passes lines of more files than the memory has room for as text", () => {
  const { files, wheel, told } = start();
  const paths = Array.from({ length: 40 }, (_, k) => `/${k}`);
  for (const path of paths) files.open(path).append(`${path} é\n`);
  wheel.advance(5);
  files.open("/39").append("later\n");
  files.flush();
  expect(told).toEqual(
    paths.flatMap((path) => [
      [path, `${path} é\n`],
      ...(path === "/39" ? [[path, "later\n"]] : []),
      [path],
    ]),
  );
});
