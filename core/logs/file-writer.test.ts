import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, it, vi } from "vitest";
import { FileWriter } from "./file-writer.ts";

const root = fs.mkdtempSync(path.join(os.tmpdir(), "writer-"));
afterEach(() => {
  for (const name of fs.readdirSync(root)) fs.rmSync(path.join(root, name), { recursive: true });
});

const counter = () => {
  let n = 0;
  return { inc: () => void n++, count: () => n };
};
function start() {
  const troubles: string[] = [];
  const stats = { completed: counter(), failed: counter(), reopenFailed: counter() };
  const mended: number[] = [];
  const writer = new FileWriter(
    {
      onTrouble: (_path, message) => troubles.push(message),
      onMended: (_path, lost) => mended.push(lost),
    },
    stats,
  );
  const file = path.join(root, "access.log");
  return {
    writer,
    troubles,
    mended,
    stats,
    file,
    read: (name = file) => fs.readFileSync(name, "utf8"),
  };
}

it("appends to what is there, in order, as UTF-8", async () => {
  const { writer, stats, file, read } = start();
  fs.writeFileSync(file, "before\n");
  writer.append(file, Buffer.from("één\n"));
  writer.append(file, Buffer.from("2 → 3\n"));
  await writer.end();
  expect(read()).toBe("before\néén\n2 → 3\n");
  expect(stats.completed.count()).toBe(2);
});

it("makes the file before there is a line", async () => {
  const { writer, file, read } = start();
  writer.append(file, Buffer.from(""));
  await writer.end();
  expect(read()).toBe("");
});

it("goes on in a new file when the old one was moved away, losing nothing", async () => {
  const { writer, file, read } = start();
  writer.append(file, Buffer.from("old\n"));
  fs.renameSync(await made(file), `${file}.1`);
  writer.append(file, Buffer.from("still old\n"));
  writer.reopen();
  writer.append(file, Buffer.from("new\n"));
  await writer.end();
  expect(read(`${file}.1`)).toBe("old\nstill old\n");
  expect(read()).toBe("new\n");
});

it("tells of a file that cannot be written, and counts what is lost", async () => {
  const { writer, troubles, stats } = start();
  writer.append(path.join(root, "none", "access.log"), Buffer.from("x\n"));
  await writer.end();
  expect(troubles).toEqual([expect.stringContaining("ENOENT")]);
  expect(stats.failed.count()).toBe(1);
});

it("tells of a file once while every write fails, and again after one that did not", async () => {
  const { writer, troubles, stats, file } = start();
  fs.mkdirSync(file);
  for (let k = 1; k <= 3; k++) {
    writer.append(file, Buffer.from("x\n"));
    await vi.waitFor(() => expect(stats.failed.count()).toBe(k), 30_000);
  }
  expect(troubles.length).toBe(1);
  fs.rmdirSync(file);
  writer.append(file, Buffer.from("x\n"));
  await writer.end();
  fs.rmSync(file);
  fs.mkdirSync(file);
  writer.append(file, Buffer.from("x\n"));
  await writer.end();
  expect(troubles.length).toBe(2);
});

/** Opened, which takes a turn or two of the thread pool. */
async function made(file: string): Promise<string> {
  while (!fs.existsSync(file)) await new Promise((resolve) => setImmediate(resolve));
  return file;
}

it("ends what it writes to the process's own output, which stays open", async () => {
  const { writer } = start();
  writer.append("/dev/stderr", Buffer.from("\n"));
  await writer.end();
});

it("tells how much was lost once a full disk has room again", async () => {
  const { writer, troubles, mended, stats, file, read } = start();
  fs.symlinkSync("/dev/full", file);
  writer.append(file, Buffer.from("one\n"));
  writer.append(file, Buffer.from("two\n"));
  await vi.waitFor(() => expect(troubles).toHaveLength(1), 30_000);
  writer.append(file, Buffer.from("three\n"));
  await vi.waitFor(() => expect(stats.failed.count()).toBe(3), 30_000);
  expect(troubles).toEqual([expect.stringMatching(/^ENOSPC/)]);
  fs.rmSync(file);
  await vi.waitFor(() => {
    writer.append(file, Buffer.from("four\n"));
    expect(mended).toEqual(["one\ntwo\nthree\n".length]);
  }, 30_000);
  await writer.end();
  expect(read()).toMatch(/^(four\n)+$/);
});
