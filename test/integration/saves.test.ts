import { type ChildProcess, execFile, spawn } from "node:child_process";
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import os from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasGit } from "../programs.ts";
import { type Edited, Load, Workbench } from "./reloading.ts";

const WORKERS = 2;
/** Fewer than four are all served by worker 0, as long as that is not busy. */
const CLIENTS = 6;
/** With the load and the other tests it makes threads of the proxy wait for a CPU. More of them would starve other tests. */
const BUSY_LOOPS = 1;
const FILES = 50;

/** Saves one file after the other, each by another way of saving. */
class Saves {
  readonly #bench: Workbench;
  readonly #what: Edited;
  readonly #file: string;

  constructor(bench: Workbench, what: Edited) {
    this.#bench = bench;
    this.#what = what;
    this.#file = bench.file(what);
  }

  get #folder(): string {
    return path.dirname(this.#file);
  }
  get version(): number {
    return this.#bench.version(this.#what);
  }
  #next(): string {
    return this.#bench.text(this.#what, this.#bench.next(this.#what));
  }

  inPlace(): void {
    writeFileSync(this.#file, this.#next());
  }

  renamedOver(): void {
    const draft = path.join(this.#folder, ".draft");
    writeFileSync(draft, this.#next());
    renameSync(draft, this.#file);
  }

  async unlinkedAndCreated(): Promise<void> {
    unlinkSync(this.#file);
    await delay(5);
    writeFileSync(this.#file, this.#next());
  }

  async truncatedThenWritten(): Promise<void> {
    const fd = openSync(this.#file, "w");
    await delay(20);
    writeSync(fd, this.#next());
    closeSync(fd);
  }

  async twice(): Promise<void> {
    this.inPlace();
    await delay(30);
    this.inPlace();
  }

  /** The file is one of fifty in its folder that the checkout changes. */
  async checkedOut(): Promise<void> {
    const repository = mkdtempSync(path.join(os.tmpdir(), "tsproxy-saves-"));
    const gitDir = path.join(repository, ".git");
    // Not synchronous: this process is the upstream.
    const git = (tree: string, ...args: string[]) =>
      promisify(execFile)("git", ["--git-dir", gitDir, "--work-tree", tree, ...args]);
    const commit = async (text: string, others: string) => {
      writeFileSync(path.join(repository, path.basename(this.#file)), text);
      for (let k = 1; k < FILES; k++)
        writeFileSync(path.join(repository, `beside${k}.txt`), `${others} ${k}\n`);
      await git(repository, "add", ".");
      const author = ["-c", "user.name=t", "-c", "user.email=t@example.com"];
      await git(repository, ...author, "commit", "-q", "-m", others);
    };
    await git(repository, "init", "-q");
    await commit(this.#bench.text(this.#what, this.version), "before");
    await commit(this.#next(), "after");
    await git(this.#folder, "checkout", "-q", "-f", "HEAD~1", "--", ".");
    await git(this.#folder, "checkout", "-q", "-f", "HEAD", "--", ".");
    rmSync(repository, { recursive: true });
  }

  /** All files of the folder become links into `..data`, a link that is swapped. */
  swappedLink(): void {
    const names = readdirSync(this.#folder, { withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map(({ name }) => name);
    const at = (...parts: string[]) => path.join(this.#folder, ...parts);
    const swap = (data: string, text: string) => {
      mkdirSync(at(data));
      for (const name of names) copyFileSync(at(name), at(data, name));
      writeFileSync(at(data, path.basename(this.#file)), text);
      symlinkSync(data, at("..new"));
      renameSync(at("..new"), at("..data"));
    };
    swap("..1", this.#bench.text(this.#what, this.version));
    for (const name of names) {
      symlinkSync(`..data/${name}`, at(".link"));
      renameSync(at(".link"), at(name));
    }
    swap("..2", this.#next());
    rmSync(at("..1"), { recursive: true });
  }
}

/** The last one leaves links behind. */
const WAYS: readonly (readonly [string, (saves: Saves) => void | Promise<void>])[] = [
  ["a write in place", (saves) => saves.inPlace()],
  ["a rename over it", (saves) => saves.renamedOver()],
  ["an unlink and a create", (saves) => saves.unlinkedAndCreated()],
  ["a truncation and a write 20 ms later", (saves) => saves.truncatedThenWritten()],
  ["two saves 30 ms apart", (saves) => saves.twice()],
  ...(hasGit
    ? ([[`a checkout of ${FILES} files`, (saves: Saves) => saves.checkedOut()]] as const)
    : []),
  ["a swapped ..data link", (saves) => saves.swappedLink()],
];

describe.each<readonly [string, Edited]>([
  ["a dropped-in filter", "filter"],
  ["a shipped package", "router"],
  ["the config", "config"],
])("beside a busy loop, the last content of %s serves", (_, what) => {
  let bench: Workbench;
  let load: Load;
  let busy: readonly ChildProcess[] = [];

  beforeAll(async () => {
    bench = await Workbench.open(WORKERS);
    load = new Load(bench.port, CLIENTS);
    await load.untilAllWorkers(WORKERS, () => true);
    // They end with this process.
    const loop = `while (process.ppid === ${process.pid});`;
    busy = Array.from({ length: BUSY_LOOPS }, () =>
      spawn(process.execPath, ["-e", loop], { stdio: "ignore" }),
    );
  });
  afterAll(async () => {
    for (const loop of busy) loop.kill("SIGKILL");
    await load?.stop();
    await bench?.close();
  });

  test.each(WAYS)("after %s", async (_way, save) => {
    const saves = new Saves(bench, what);
    await save(saves);
    await load.untilAllWorkers(WORKERS, (seen) => seen[what] === saves.version);
    await load.pass(20);
    expect(load.last?.[what]).toBe(saves.version);
    expect(load.failures).toEqual([]);
  });
});
