import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { existsSync, statSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { faultStat, sandboxStat } from "../admin/server-stats.ts";
import { didYouMean } from "../config/diagnostic.ts";
import { loadConfig } from "../config/load.ts";
import { fileError } from "../file-error.ts";
import type { Runtime } from "../options.ts";
import { ownModule } from "../own-files.ts";
import { Catalog } from "../packages/catalog.ts";
import type { PackageUnit } from "../packages/package-unit.ts";
import { formatProblem, refuse, shortPath } from "../problem.ts";
import type { PackageInfo } from "../protocol.ts";
import type { Load, Slice } from "./bench-peer.ts";
import { BenchProxy, type BenchProxyOptions } from "./bench-proxy.ts";
import {
  type BenchResult,
  type Crossing,
  type Measured,
  microseconds,
  phasesOf,
  shownBench,
  type VariantName,
} from "./bench-report.ts";
import { sampleOf } from "./dev-chain.ts";
import { find, hooksIn } from "./filter-info.ts";
import { freePort } from "./free-port.ts";

export interface FilterBenchOptions {
  /** The filter: its name in configs, `kind/name`, or a path. */
  readonly name: string;
  readonly filters: readonly string[];
  /** A config whose entry of the filter is used; undefined: the smallest config that its schema accepts. */
  readonly configFile: string | undefined;
  /** Total duration of the measurement. */
  readonly seconds: number;
  /** Path of the requests, and header lines beside those that a browser sends. */
  readonly path: string;
  readonly headers: readonly string[];
  readonly connections: number;
  readonly json: boolean;
}

const SLICE_MS = 150;
const ROUNDS_MIN = 3;
const WARM_UP_MS = 2_000;
/** The end of a stream reaches the sandbox up to 20 ms late. */
const SETTLE_MS = 50;
/** Sandboxes report their stats once a second. */
const TOLD_MS = 1_300;

/** Headers that a browser sends. */
const HEADERS = [
  "Host: www.example.com",
  "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
  "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8",
  "Accept-Language: en-GB,en;q=0.9,de;q=0.8",
  "Accept-Encoding: gzip, deflate, br, zstd",
  "Cookie: session=4f1c9a7be2d34c0f9b8a; theme=dark; consent=yes",
];

/**
 * Measures the CPU that one filter costs a request, compared with none: among the shipped filters and in a sandbox, in
 * alternating slices of a moment each. Answers the exit code.
 */
export async function filterBench(options: FilterBenchOptions, runtime: Runtime): Promise<number> {
  let result: BenchResult;
  try {
    if (process.platform !== "linux") throw new Refused("filter bench reads /proc: Linux only");
    const subject = await findSubject(options);
    const folder = await mkdtemp(path.join(tmpdir(), "tsproxy-bench-"));
    const bench = new Bench(options, subject, folder, runtime);
    const end = () => void bench.end().then(() => process.exit(1));
    for (const signal of ["SIGINT", "SIGTERM"] as const) process.on(signal, end);
    try {
      result = await bench.run();
    } finally {
      for (const signal of ["SIGINT", "SIGTERM"] as const) process.off(signal, end);
      await bench.end();
    }
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return refuse(error.message, options.json);
  }
  process.stdout.write(options.json ? `${JSON.stringify(result)}\n` : shownBench(result));
  return 0;
}

/** A failure that the user can act on; its message is printed without a stack. */
class Refused extends Error {}

/** The filter to measure, and the variants to measure it in. */
interface Subject {
  readonly info: PackageInfo;
  readonly hooks: readonly string[];
  readonly filters: readonly string[];
  /** The filter's entry in `http_filters`. */
  readonly use: { readonly name: string };
  readonly variants: readonly VariantName[];
  readonly notes: readonly string[];
}

async function findSubject(options: FilterBenchOptions): Promise<Subject> {
  const at = placeOf(options.name);
  const filters = at === undefined ? options.filters : [at.directory];
  const catalog = await Catalog.open([]);
  const units = await catalog.units(filters);
  catalog.dispose();
  const isAt = ({ source }: PackageUnit) => source.id === at?.id;
  const found =
    at === undefined ? find(units, options.name) : find(units.filter(isAt), path.basename(at.id));
  if (found === undefined) throw new Refused(whyNone(options.name, units, at && isAt));
  const { info, unit, built } = found;
  if (info.kind !== "http")
    throw new Refused(
      `${info.package}: filter bench takes http filters only; test/bench of the sources has one for connections`,
    );
  if (info.terminal)
    throw new Refused(`${info.package}: it ends every chain; there is none without it`);
  const use =
    options.configFile === undefined
      ? { name: info.package, config: sampleOf(info.schema) }
      : await useIn(options.configFile, info, units);
  const { variants, note } = placements(unit, info, built.group);
  return {
    info,
    hooks: hooksIn("http", built.bundle.code),
    filters,
    use,
    variants: ["none", "idle", ...variants],
    notes: note === "" ? [] : [note],
  };
}

/** The package that a path names, as a source id and its directory. Undefined: `name` is no path. */
function placeOf(name: string): { readonly id: string; readonly directory: string } | undefined {
  if (!/[/.]/.test(name) || !existsSync(name)) return undefined;
  const file = path.resolve(name);
  const isEntry = /^filter\.[cm]?[jt]s$/.test(path.basename(file)) && statSync(file).isFile();
  const id = isEntry ? path.dirname(file) : file;
  return { id, directory: path.dirname(id) };
}

function whyNone(
  name: string,
  units: readonly PackageUnit[],
  isAt: ((unit: PackageUnit) => boolean) | undefined,
): string {
  const base = path.basename(name);
  const broken = units.find(
    (unit) =>
      unit.problems[0] !== undefined &&
      (isAt?.(unit) ?? path.basename(unit.source.id).replace(/\.[cm]?[jt]s$/, "") === base),
  );
  if (broken !== undefined)
    return `${formatProblem(broken.problems[0]!)}\nit does not load, so there is nothing to measure; mend it, then measure again`;
  const names = units.flatMap((unit) => unit.next?.infos ?? []).flatMap((i) => [i.package, i.name]);
  return `no filter "${name}"; ${didYouMean(name, names) ?? "name its file, its directory with --filters, or see tsproxy filter list"}`;
}

/** The variants in which the filter can run, and why there are not more. */
function placements(
  unit: PackageUnit,
  info: PackageInfo,
  group: string,
): { readonly variants: readonly VariantName[]; readonly note: string } {
  if (group !== "builtin") {
    if (info.origin === "shipped")
      return { variants: ["sandbox"], note: "shipped in a sandbox: measured there only" };
    return { variants: ["builtin", "sandbox"], note: "" };
  }
  const why = unit.source.origin === "shipped" ? "a shipped filter" : "trusted by its package.json";
  return { variants: ["builtin"], note: `${why}: measured without a sandbox` };
}

/** Finds the filter's entry in a config. */
async function useIn(
  file: string,
  info: PackageInfo,
  units: readonly PackageUnit[],
): Promise<{ readonly name: string }> {
  const text = await readFile(file, "utf8").catch((error: unknown) => {
    throw new Refused(`${file}: cannot be read: ${fileError(error)}`);
  });
  const infos = units.flatMap((unit) => unit.next?.infos ?? []);
  const broken = units.flatMap((unit) => unit.broken ?? []);
  const loaded = loadConfig({ file, text }, infos, { strict: false, broken });
  if (!loaded.ok)
    throw new Refused(
      loaded.errors.map((error) => formatProblem({ ...error, frame: "" })).join("\n"),
    );
  const names = [info.package, info.name, info.package.split("/")[1], ...info.aliases];
  const isUse = (value: object): value is { readonly name: string } => {
    const { name, typed_config: typed } = value as { name?: unknown; typed_config?: object };
    const type = String((typed as { "@type"?: unknown } | undefined)?.["@type"] ?? "");
    return names.includes(String(name)) || info.types.includes(type.split("/").at(-1)!);
  };
  const search = (value: unknown): { readonly name: string } | undefined => {
    if (typeof value !== "object" || value === null) return undefined;
    const { http_filters: list } = value as { http_filters?: readonly object[] };
    const use = list?.find(isUse);
    if (use !== undefined) return use;
    for (const part of Object.values(value)) {
      const found = search(part);
      if (found !== undefined) return found;
    }
    return undefined;
  };
  const use = search(loaded.bootstrap);
  if (use === undefined)
    throw new Refused(
      `${file}: no http_filters has ${info.package}; leave -c out to measure it with the smallest config`,
    );
  return use;
}

type BenchPorts = Pick<BenchProxyOptions, "port" | "adminPort" | "upstreamPort">;

interface Running {
  readonly name: VariantName;
  readonly proxy: BenchProxy;
  readonly slices: Measured[];
  readonly statuses: Map<string, number>;
  lost: number;
}

/** One run of the benchmark: starts the proxies and peers, measures, and cleans up. */
class Bench {
  readonly #options: FilterBenchOptions;
  readonly #subject: Subject;
  readonly #folder: string;
  readonly #runtime: Runtime;
  readonly #peers: ChildProcess[] = [];
  readonly #proxies: BenchProxy[] = [];
  readonly #running: Running[] = [];
  readonly #isTerminal = process.stderr.isTTY === true;

  constructor(options: FilterBenchOptions, subject: Subject, folder: string, runtime: Runtime) {
    this.#options = options;
    this.#subject = subject;
    this.#folder = folder;
    this.#runtime = runtime;
  }

  async run(): Promise<BenchResult> {
    const { variants, info, use } = this.#subject;
    const { seconds, connections } = this.#options;
    this.#tell("starting");
    await this.#writeIdle();
    const load = this.#peer("load");
    const upstream = this.#peer("upstream");
    const [[upstreamPort]] = await Promise.all([once(upstream, "message"), once(load, "message")]);
    const ports: BenchPorts[] = [];
    for (const _ of variants)
      ports.push({ upstreamPort, port: await freePort(0), adminPort: await freePort(0) });
    const started = await Promise.allSettled(
      variants.map((name, k) => this.#start(name, ports[k]!)),
    );
    for (const outcome of started) {
      if (outcome.status === "rejected") throw outcome.reason;
      this.#running.push(outcome.value);
    }
    const sliceMs = Math.round(
      Math.min(SLICE_MS, (seconds * 1000) / (ROUNDS_MIN * variants.length)),
    );
    const rounds = Math.max(ROUNDS_MIN, Math.round((seconds * 1000) / (sliceMs * variants.length)));
    const warmUpMs = Math.min(WARM_UP_MS, sliceMs * 8);
    this.#tell("warming up");
    for (const running of this.#running) await this.#slice(load, running, warmUpMs);
    const sandbox = this.#running.find(({ name }) => name === "sandbox");
    const before = await this.#usage(sandbox);
    for (let round = 0; round < rounds; round++) {
      this.#tell(`round ${round + 1} of ${rounds}`);
      // Every other round runs in reverse, so that changes over time affect all variants alike.
      for (const running of round % 2 === 0 ? this.#running : this.#running.toReversed())
        await this.#measure(load, running, sliceMs);
    }
    this.#tell("counting");
    const after = await this.#usage(sandbox);
    const results = this.#running.map((running) => this.#result(running));
    const asked = results.find(({ name }) => name === "sandbox")?.requests ?? 0;
    const crossing = crossingOf(before, after, asked);
    this.#tell("");
    return {
      package: info.package,
      config: use,
      rounds,
      sliceMs,
      connections,
      variants: results,
      phases: phasesOf(results, crossing),
      crossing,
      faults: await this.#faults(),
      notes: [...this.#subject.notes, ...this.#notes()],
    };
  }

  /** Writes a filter whose hooks do nothing, to measure what calling hooks costs. */
  async #writeIdle(): Promise<void> {
    const folder = path.join(this.#folder, "idle");
    await mkdir(folder);
    const hooks = this.#subject.hooks.map((hook) => `${hook}() {}`).join(", ");
    const code = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({ name: "bench_idle", config: Type.Object({}), setup: () => () => ({ ${hooks} }) });\n`;
    await writeFile(path.join(folder, "bench_idle.js"), code);
  }

  async #start(name: VariantName, ports: BenchPorts): Promise<Running> {
    const { use, info, filters } = this.#subject;
    const httpFilters = {
      none: [],
      idle: [{ name: "http/bench_idle", config: {} }],
      builtin: [use],
      sandbox: [use],
    }[name];
    const own = name === "builtin" && info.origin === "dropped-in" ? [info.package] : [];
    const idle = { filters: [path.join(this.#folder, "idle")], trusted: ["http/bench_idle"] };
    const all = { filters, trusted: own };
    const packages = name === "none" ? { filters: [], trusted: [] } : name === "idle" ? idle : all;
    const options = { name, folder: this.#folder, ...ports, httpFilters, ...packages };
    let proxy: BenchProxy;
    try {
      proxy = await BenchProxy.start(options, this.#runtime);
      this.#proxies.push(proxy);
    } catch (error) {
      const config = this.#options.configFile;
      const how =
        config === undefined
          ? "it was given the smallest config that its schema takes; give it another one from a file of yours with -c"
          : `it was given its entry of ${shortPath(config)}`;
      throw new Refused(`${(error as Error).message}\nthe proxy does not start with it; ${how}`);
    }
    return { name, proxy, slices: [], statuses: new Map(), lost: 0 };
  }

  #peer(role: "load" | "upstream"): ChildProcess {
    const { node } = this.#runtime;
    const peer = fork(fileURLToPath(ownModule("command/bench-peer")), [role], {
      execPath: node,
      execArgv: [],
      stdio: ["ignore", "ignore", "inherit", "ipc"],
    });
    this.#peers.push(peer);
    return peer;
  }

  async #slice(load: ChildProcess, { proxy }: Running, ms: number): Promise<Load> {
    const { path: target, headers, connections } = this.#options;
    const lines = [`GET ${target} HTTP/1.1`, ...HEADERS, ...headers];
    const slice: Slice = {
      port: proxy.port,
      ms,
      connections,
      request: `${lines.join("\r\n")}\r\n\r\n`,
    };
    load.send(slice);
    const [told] = (await once(load, "message")) as [Load];
    await sleep(SETTLE_MS);
    if (told.requests === 0)
      throw new Refused(
        `no request was answered within ${ms} ms; tsproxy filter dev ${this.#subject.info.name} shows what becomes of one`,
      );
    return told;
  }

  async #measure(load: ChildProcess, running: Running, ms: number): Promise<void> {
    const before = running.proxy.cpuUs;
    const { requests, statuses, lost } = await this.#slice(load, running, ms);
    running.slices.push({ cpuUs: running.proxy.cpuUs - before, requests });
    running.lost += lost;
    for (const [status, n] of Object.entries(statuses))
      running.statuses.set(status, (running.statuses.get(status) ?? 0) + n);
  }

  #result({ name, slices, statuses, lost }: Running): BenchResult["variants"][number] {
    const cost = ({ cpuUs, requests }: Measured) => cpuUs / requests;
    const base = this.#running[0]!.slices;
    return {
      name,
      cpuUs: microseconds(slices.map(cost)),
      addedUs:
        name === "none"
          ? undefined
          : microseconds(slices.map((slice, k) => cost(slice) - cost(base[k]!))),
      requests: slices.reduce((sum, { requests }) => sum + requests, 0),
      statuses: Object.fromEntries(statuses),
      lost,
    };
  }

  /** The sandbox's usage counters, read after its last report. Empty: no sandbox is measured. */
  async #usage(sandbox: Running | undefined): Promise<ReadonlyMap<string, number>> {
    if (sandbox === undefined) return new Map();
    await sleep(TOLD_MS);
    return sandbox.proxy.counters(sandboxStat(this.#subject.info.package, ""));
  }

  async #faults(): Promise<number> {
    const name = faultStat(this.#subject.info.package);
    const counted = await Promise.all(
      this.#running.map(({ proxy }) => proxy.counters(name).then((all) => all.get("") ?? 0)),
    );
    return counted.reduce((sum, n) => sum + n, 0);
  }

  /** The upstream answers every request with 200, so any other status comes from the filter. */
  #notes(): string[] {
    const own = this.#running.some(({ statuses }) => [...statuses.keys()].some((s) => s !== "200"));
    return own
      ? ["not all were answered by the upstream: what it did not get costs less than what it did"]
      : [];
  }

  #tell(what: string): void {
    if (!this.#isTerminal) return;
    const line = what === "" ? "" : `${this.#subject.info.package}: ${what}`;
    process.stderr.write(`\r\u001b[K${line}`);
  }

  async end(): Promise<void> {
    for (const proxy of this.#proxies) proxy.stop();
    for (const peer of this.#peers) peer.kill("SIGKILL");
    this.#tell("");
    await rm(this.#folder, { recursive: true, force: true });
  }
}

/** What one request moves across the sandbox's border, from counters before and after. Undefined: nothing crossed. */
function crossingOf(
  before: ReadonlyMap<string, number>,
  after: ReadonlyMap<string, number>,
  requests: number,
): Crossing | undefined {
  const each = (name: string) => ((after.get(name) ?? 0) - (before.get(name) ?? 0)) / requests;
  const entries = each("entries");
  if (!(entries > 0)) return undefined;
  return {
    entries,
    records: each("records"),
    bytesIn: each("bytes_in"),
    bytesOut: each("bytes_out"),
    insideUs: each("cpu_us"),
  };
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
