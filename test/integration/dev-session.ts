import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { eventually } from "./client.ts";
import { CLI } from "./proxy.ts";

/** A line of `tsproxy filter dev --json`. */
export interface DevLine {
  readonly event: string;
  readonly [field: string]: unknown;
}

/** `tsproxy filter dev` in a folder of its own. */
export class DevSession {
  readonly dir: string;
  readonly lines: DevLine[] = [];
  readonly #program: readonly string[];
  readonly #isOwn: boolean;
  #child: ChildProcess | undefined;
  #exited: Promise<number | null> = Promise.resolve(null);
  #read = 0;
  stderr = "";

  /** `folder`: one that is there, and stays, in the place of a temporary one. */
  constructor(program: readonly string[] = [process.execPath, CLI], folder?: string) {
    this.#program = program;
    this.#isOwn = folder === undefined;
    this.dir = folder ?? mkdtempSync(path.join(os.tmpdir(), "tsproxy-dev-test-"));
  }

  /** Runs another command of tsproxy there. */
  run(...args: string[]): { readonly status: number | null; readonly stdout: string } {
    const [program, ...first] = this.#program;
    const { FORCE_COLOR: _, ...around } = process.env;
    const env = { ...around, NO_COLOR: "1" };
    const options = { cwd: this.dir, env, encoding: "utf8" } as const;
    const { status, stdout, stderr } = spawnSync(program!, [...first, ...args], options);
    return { status, stdout: stdout + stderr };
  }

  async start(...args: string[]): Promise<DevLine> {
    const [program, ...first] = this.#program;
    const command = [...first, "filter", "dev", "--json", "--port", "0", ...args];
    const child = spawn(program!, command, { cwd: this.dir, stdio: ["ignore", "pipe", "pipe"] });
    this.#child = child;
    createInterface({ input: child.stdout }).on("line", (line) =>
      this.lines.push(JSON.parse(line)),
    );
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    this.#exited = new Promise((resolve) => child.on("close", resolve));
    // A busy machine takes its time to start one.
    return this.next("started").catch(() => this.next("started"));
  }

  /** The next line of that event; those before it are passed by. */
  async next(event: string): Promise<DevLine> {
    const found = () => this.lines.findIndex((line, k) => k >= this.#read && line.event === event);
    await eventually(
      async () => found(),
      (at) => at >= 0,
      `${event}, after ${JSON.stringify(this.lines.slice(-5))} ${this.stderr}`,
    );
    const at = found();
    this.#read = at + 1;
    return this.lines[at]!;
  }

  read(file: string): string {
    return readFileSync(path.join(this.dir, file), "utf8");
  }
  write(file: string, text: string): void {
    writeFileSync(path.join(this.dir, file), text);
  }

  async end(): Promise<number | null> {
    this.#child?.kill("SIGTERM");
    const code = await this.#exited;
    if (this.#isOwn) rmSync(this.dir, { recursive: true, force: true });
    return code;
  }
}

/** Of a listener that a `started` line tells of. */
export function portOf(started: DevLine, listener: string): number {
  const listeners = started.listeners as { readonly name: string; readonly address: string }[];
  const { address } = listeners.find(({ name }) => name === listener)!;
  return Number(/:(\d+)$/.exec(address)![1]);
}
