import { mkdtempSync, rmSync, truncateSync, unlinkSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { FileLook } from "./file-look.ts";
import type { FoundFile } from "./protocol.ts";
import { ServedFiles } from "./served-files.ts";
import { WatchedFiles } from "./watched-files.ts";

let dir = "";
let look: FileLook<ThreadOfFiles>;
let threads: ThreadOfFiles[] = [];
/** Called between a look and the threads' reading. */
let meanwhile = () => {};
beforeEach(() => {
  dir = mkdtempSync(path.join(os.tmpdir(), "tsproxy-watched-"));
  meanwhile = () => {};
  look = new FileLook((found) => {
    meanwhile();
    for (const thread of threads) thread.watched.onFound(found);
  });
  threads = Array.from({ length: 4 }, () => new ThreadOfFiles());
});
afterEach(() => {
  look.stop();
  rmSync(dir, { recursive: true, force: true });
});

/** A thread with one reader, which reads all its files whenever one has changed, as a TLS context does. */
class ThreadOfFiles {
  readonly files = new ServedFiles();
  readonly watched = new WatchedFiles(
    this.files,
    (message) => {
      if (message.type === "watch_file") look.watch(this, message.path, message.seen);
      else look.unwatch(this, message.path);
    },
    (name) => this.#onChanged(name),
  );
  /** What it has taken: all its files, each time. */
  readonly taken: string[] = [];
  readonly refused: string[] = [];
  #names: readonly string[] = [];
  takes: (text: string) => boolean = () => true;

  serve(...names: readonly string[]): void {
    this.#names = names;
    this.files.prepare();
    this.taken.push(this.#read());
    this.files.commit();
    for (const name of names) this.watched.add(name, this.files.seen(name));
  }

  #read(): string {
    return this.#names.map((name) => `${this.files.read(name)}`).join(" ");
  }

  #onChanged(_name: string): void {
    this.files.beginChange();
    let isTaken = false;
    try {
      const text = this.#read();
      isTaken = this.takes(text);
      (isTaken ? this.taken : this.refused).push(text);
    } catch (error) {
      this.refused.push((error as Error).message);
    }
    this.files.endChange(isTaken);
  }
}

function save(name: string, text: string): string {
  const file = path.join(dir, name);
  writeFileSync(file, text);
  return file;
}

it("four threads go through the same contents, although the file changes again before they read", async () => {
  const file = save("a.pem", "1");
  for (const thread of threads) thread.serve(file);
  save("a.pem", "second");
  meanwhile = () => save("a.pem", "the third");
  await look.look();
  for (const { taken } of threads) expect(taken).toEqual(["1", "second"]);
  meanwhile = () => save("a.pem", "4");
  await look.look();
  meanwhile = () => {};
  await look.look();
  await look.look();
  for (const { taken } of threads) expect(taken).toEqual(["1", "second", "the third", "4"]);
});

it("a thread whose setup has read other contents than the others' comes to the same ones", async () => {
  const file = save("a.pem", "1");
  threads[0]!.serve(file);
  save("a.pem", "second");
  for (const thread of threads.slice(1)) thread.serve(file);
  await look.look();
  expect(threads.map(({ taken }) => taken)).toEqual([
    ["1", "second"],
    ["second"],
    ["second"],
    ["second"],
  ]);
});

it("a certificate and its key that one look finds are read together; one that waits for the other is kept", async () => {
  const [certificate, key] = [save("a.pem", "1"), save("a.key", "1")];
  for (const thread of threads) {
    thread.takes = (text) => text === "22 22" || text === "333 333";
    thread.serve(certificate, key);
  }
  save("a.pem", "22");
  save("a.key", "22");
  await look.look();
  for (const { taken, refused } of threads) {
    expect(new Set(taken)).toEqual(new Set(["1 1", "22 22"]));
    expect(refused).toEqual([]);
  }
  save("a.pem", "333");
  await look.look();
  save("a.key", "333");
  await look.look();
  for (const { taken, refused } of threads) {
    expect(refused).toEqual(["333 22"]);
    expect(taken.at(-1)).toBe("333 333");
  }
});

it("a file that cannot be read any more is refused by its readers, one that is gone changes nothing", async () => {
  const file = save("a.pem", "1");
  for (const thread of threads) thread.serve(file);
  unlinkSync(file);
  await look.look();
  save("a.pem", "");
  truncateSync(file, 65 * 1024 * 1024);
  await look.look();
  for (const { taken, refused } of threads) {
    expect(taken).toEqual(["1"]);
    expect(refused).toEqual([`${file} has more than 64 MiB`]);
  }
});

it("what nobody watches any more is not looked at", async () => {
  const file = save("a.pem", "1");
  const found: FoundFile[] = [];
  const own = new FileLook<number>((files) => found.push(...files));
  own.watch(1, file, "");
  own.watch(2, file, "");
  own.unwatch(1, file);
  await own.look();
  expect(found.map(({ path }) => path)).toEqual([file]);
  save("a.pem", "second");
  own.forget(2);
  await own.look();
  own.stop();
  expect(found).toHaveLength(1);
});
