import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { eventually, get } from "./client.ts";
import type { Json } from "./config.ts";
import { PATIENCE_MS, patienceMs } from "./patience.ts";

export const ROOT = path.join(import.meta.dirname, "../..");
export const CLI = path.join(ROOT, "core/bin/tsproxy.js");

export interface ProxyOptions {
  /** A bootstrap, or the text of a YAML file. */
  readonly config: Json | string;
  /** Files beside the config, by their path; what lies in `filters/` is dropped in. */
  readonly files?: Readonly<Record<string, string>>;
  /** An existing folder in the place of a temporary one; `config` is then a file name in it. */
  readonly folder?: string;
  readonly concurrency?: number;
  /** Instead of the checkout's command line. */
  readonly program?: readonly [string, ...string[]];
  readonly args?: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** A line of the proxy's own log. */
export interface LogLine {
  readonly level: string;
  readonly msg: string;
  readonly [field: string]: unknown;
}

/** What a start that failed left behind. */
export class StartFailure extends Error {
  readonly code: number | null;
  readonly output: string;

  constructor(code: number | null, output: string) {
    super(`the proxy ended with ${code} before it was ready:\n${output}`);
    this.code = code;
    this.output = output;
  }
}

/** The real proxy, started by its command line on a configuration in a folder of its own. */
export class Proxy {
  readonly dir: string;
  readonly configFile: string;
  readonly #child: ChildProcess;
  readonly #ownDir: boolean;
  readonly #lines: LogLine[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #ports = new Map<string, number>();
  readonly exited: Promise<number | null>;
  #output = "";
  #stdout = "";
  #partial = "";
  #gone = false;

  private constructor(options: ProxyOptions) {
    this.#ownDir = options.folder === undefined;
    this.dir = options.folder ?? mkdtempSync(path.join(os.tmpdir(), "tsproxy-test-"));
    for (const [name, text] of Object.entries(options.files ?? {})) this.write(name, text);
    this.configFile = this.#place(options);
    const { concurrency = 1, args = [], env = {} } = options;
    const [program, ...first] = options.program ?? [process.execPath, CLI];
    const command = ["run", "-c", this.configFile, "--concurrency", String(concurrency), ...args];
    this.#child = spawn(program, [...first, ...command], {
      cwd: this.dir,
      env: { ...process.env, ...env },
      // With the end of this process its channel closes, and the proxy ends: a test that was given up leaves none behind.
      stdio: ["ignore", "pipe", "pipe", "ipc"],
    });
    this.#child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      this.#stdout += text;
      this.#look();
    });
    this.#child.stderr!.setEncoding("utf8").on("data", (text: string) => this.#onOutput(text));
    this.exited = new Promise((resolve) => {
      this.#child.on("close", (code) => {
        this.#gone = true;
        this.#look();
        resolve(code);
      });
    });
  }

  /** Starts a proxy, and does not wait for it. */
  static launch(options: ProxyOptions): Proxy {
    return new Proxy(options);
  }

  /** Settles when the proxy serves; throws a StartFailure if it never does. */
  static async start(options: ProxyOptions): Promise<Proxy> {
    const proxy = Proxy.launch(options);
    try {
      await proxy.#until(() => proxy.#ready(), '"watching …", the last line of a start');
    } catch (error) {
      await proxy.stop();
      throw error;
    }
    return proxy;
  }

  #place({ config, folder }: ProxyOptions): string {
    if (folder !== undefined) return path.join(folder, config as string);
    if (typeof config === "string") return this.write("envoy.yaml", config);
    return this.write("envoy.json", JSON.stringify(config, undefined, 1));
  }

  /** Writes a file of the proxy's folder and tells where it is. */
  write(name: string, text: string): string {
    const file = path.join(this.dir, name);
    mkdirSync(path.dirname(file), { recursive: true });
    writeFileSync(file, text);
    return file;
  }
  /** Saves another configuration over the one that runs. */
  reconfigure(config: Json | string): void {
    const text = typeof config === "string" ? config : JSON.stringify(config, undefined, 1);
    writeFileSync(this.configFile, text);
  }
  read(name: string): string {
    return readFileSync(path.join(this.dir, name), "utf8");
  }

  get pid(): number {
    return this.#child.pid!;
  }
  get lines(): readonly LogLine[] {
    return this.#lines;
  }
  /** Everything on stderr. */
  get output(): string {
    return this.#output;
  }
  get stdout(): string {
    return this.#stdout;
  }
  get gone(): boolean {
    return this.#gone;
  }

  /** The port that a listener got. */
  port(listener: string): number {
    const port = this.#ports.get(listener);
    if (port === undefined) throw new Error(`no listener "${listener}" said where it listens`);
    return port;
  }
  get adminPort(): number {
    return this.port("admin");
  }

  async admin(page: string, method = "GET"): Promise<string> {
    const { status, text } = await get(this.adminPort, page, { method });
    if (status !== 200) throw new Error(`${method} ${page} answered ${status}: ${text}`);
    return text;
  }

  /** Counters and gauges by name; 0 for one that nobody has counted on yet. */
  async stats(): Promise<(name: string) => number> {
    const text = await this.admin("/stats");
    const values = new Map<string, number>();
    for (const [, name, value] of text.matchAll(/^(\S+): (-?\d+)$/gm))
      values.set(name!, Number(value));
    return (name) => values.get(name) ?? 0;
  }
  async stat(name: string): Promise<number> {
    return (await this.stats())(name);
  }
  untilStat(name: string, wanted: number): Promise<number> {
    return eventually(
      () => this.stat(name),
      (value) => value === wanted,
      `${name} = ${wanted}`,
    );
  }

  /** Settles with the first line of the log, from `from` on, that matches. */
  async line(pattern: RegExp, from = 0): Promise<LogLine> {
    const found = () => this.#lines.slice(from).find(({ msg }) => pattern.test(msg));
    await this.#until(() => found() !== undefined, `a line like ${pattern}`);
    return found()!;
  }
  untilStdout(holds: (text: string) => boolean): Promise<void> {
    return this.#until(() => holds(this.#stdout), "something on stdout");
  }

  signal(name: NodeJS.Signals): void {
    this.#child.kill(name);
  }

  /** Resident memory of these of the proxy's processes together, in bytes (Linux only). */
  rss(of: readonly number[] = this.tree()): number {
    return of.map(residentBytes).reduce((sum, n) => sum + n, 0);
  }

  /** Ids of all its processes. */
  tree(): number[] {
    return [this.pid, ...descendants(this.pid)];
  }

  /**
   * Ids of the processes that have not ended, the oldest first: those that the supervisor has started, or those in which changes
   * are tried (`trial`).
   */
  processes(module: "boot" | "trial" = "boot"): number[] {
    return descendants(this.pid).filter((pid) => commandOf(pid).includes(`/${module}.`));
  }

  /** Ends it with SIGTERM and tells its exit code. */
  async stop(): Promise<number | null> {
    if (!this.#gone) this.signal("SIGTERM");
    const kill = setTimeout(() => this.signal("SIGKILL"), PATIENCE_MS);
    const code = await this.exited;
    clearTimeout(kill);
    if (this.#ownDir) rmSync(this.dir, { recursive: true, force: true });
    return code;
  }

  /** What the proxy says last of all when it starts. */
  #ready(): boolean {
    return this.#lines.some(({ msg }) => msg.startsWith("watching "));
  }

  #onOutput(text: string): void {
    this.#output += text;
    const lines = (this.#partial + text).split("\n");
    this.#partial = lines.pop()!;
    for (const line of lines) this.#onLine(line);
    this.#look();
  }

  #onLine(text: string): void {
    if (!text.startsWith("{")) return;
    const line = JSON.parse(text) as LogLine;
    this.#lines.push(line);
    const [, listening] = /^listening on (.*), with/.exec(line.msg) ?? [];
    for (const [, port, name] of listening?.matchAll(/\S+:(\d+) \(([^)]+)\)/g) ?? [])
      this.#ports.set(name!, Number(port));
    const [, admin] = /^admin at http:\/\/\S+:(\d+)/.exec(line.msg) ?? [];
    if (admin !== undefined) this.#ports.set("admin", Number(admin));
  }

  #until(holds: () => boolean, what: string): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (end: () => void) => {
        clearTimeout(deadline);
        this.#waiting.delete(look);
        end();
      };
      const look = () => {
        if (holds()) finish(resolve);
        else if (this.#gone)
          finish(() => reject(new StartFailure(this.#child.exitCode, this.#output)));
      };
      const ms = patienceMs();
      const deadline = setTimeout(() => finish(() => reject(this.#neverCame(what, ms))), ms);
      this.#waiting.add(look);
      look();
    });
  }

  #neverCame(what: string, ms: number): Error {
    const output = this.#output === "" ? "it has said nothing" : this.#output.slice(-4000);
    const processes = this.tree().map((pid) => `${pid} ${commandOf(pid)}: ${stateOf(pid)}`);
    const waited = `never came within ${Math.round(ms / 1000)} s: ${what}`;
    return new Error(`${waited}\n${output}\nits processes:\n${processes.join("\n")}`);
  }

  #look(): void {
    for (const look of [...this.#waiting]) look();
  }
}

function descendants(pid: number): number[] {
  const children = readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((other) => parentOf(other) === pid)
    // Ids of processes start anew, after 32,768 on many systems.
    .toSorted((a, b) => startOf(a) - startOf(b));
  return children.flatMap((child) => [child, ...descendants(child)]);
}

function parentOf(pid: number): number {
  return Number(/^PPid:\s+(\d+)/m.exec(statusOf(pid))?.[1] ?? -1);
}

function residentBytes(pid: number): number {
  return Number(/^VmRSS:\s+(\d+)/m.exec(statusOf(pid))?.[1] ?? 0) * 1024;
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ").trim();
  } catch {
    return "";
  }
}

/** Of its main thread; "": it has ended. */
function stateOf(pid: number): string {
  try {
    const fields = fieldsOf(pid);
    return `${fields[0]}, ${(Number(fields[11]) + Number(fields[12])) / 100} s of CPU`;
  } catch {
    return "";
  }
}

/** When it started, in hundredths of a second; 0: it has ended. */
function startOf(pid: number): number {
  try {
    return Number(fieldsOf(pid)[19]);
  } catch {
    return 0;
  }
}

/** Of its /proc/PID/stat, those behind its name, which may have spaces. Times are in hundredths of a second. */
function fieldsOf(pid: number): string[] {
  return readFileSync(`/proc/${pid}/stat`, "utf8").split(") ")[1]!.split(" ");
}

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, "utf8");
  } catch {
    return "";
  }
}
