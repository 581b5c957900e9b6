import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import type { DevEvent, Exchange } from "../dev-events.ts";
import type { RunOptions, Runtime } from "../options.ts";
import { Catalog } from "../packages/catalog.ts";
import { noFilters, refuse, shortPath } from "../problem.ts";
import { onNpxEnded } from "../process/npx.ts";
import { Supervisor } from "../process/supervisor.ts";
import { FILE_FLUSH, type PackageInfo } from "../protocol.ts";
import { type ChainPorts, devConfig } from "./dev-chain.ts";
import { type Echo, httpEcho, tcpEcho } from "./dev-echo.ts";
import { Replay } from "./dev-replay.ts";
import { type Committed, type DevReport, devReport, type Refused } from "./dev-report.ts";
import { freePort } from "./free-port.ts";

/** How long connections may take to finish on code that has been replaced. */
const DRAIN_MS = 1_000;

export interface FilterDevOptions {
  /** The one filter of the generated chain; undefined: all that are found. */
  readonly name: string | undefined;
  /** Directories of packages. */
  readonly filters: readonly string[];
  /** The user's config; undefined: one is generated. */
  readonly configFile: string | undefined;
  readonly trust: readonly string[];
  /** HTTP port of the generated config; 0: any. */
  readonly port: number;
  readonly concurrency: number;
  /** How many of the last requests are sent again after a save. */
  readonly replay: number;
  readonly json: boolean;
  /** Port at which debuggers attach; undefined: none can. */
  readonly inspectPort: number | undefined;
}

/** Runs a proxy in front of echo upstreams and reports every save in the terminal. Answers the exit code. */
export async function filterDev(options: FilterDevOptions, runtime: Runtime): Promise<number> {
  const { json } = options;
  const colours = process.stdout.isTTY === true && process.env.NO_COLOR === undefined;
  const report = devReport(json, (text) => process.stdout.write(text), colours);
  const chain = options.configFile === undefined ? await OwnChain.make(options) : undefined;
  if (typeof chain === "string") return refuse(chain, json);
  const dev = new Dev(options, report, chain);
  try {
    return await dev.run(runtime);
  } finally {
    await chain?.dispose();
  }
}

/** One run of `filter dev`: supervises the proxy and reports its events. */
class Dev {
  readonly #options: FilterDevOptions;
  readonly #report: DevReport;
  readonly #chain: OwnChain | undefined;
  readonly #replay: Replay;
  /** Outcomes are reported one at a time: the replays of one end before the next is reported. */
  #telling: Promise<void> = Promise.resolve();

  constructor(options: FilterDevOptions, report: DevReport, chain: OwnChain | undefined) {
    this.#options = options;
    this.#report = report;
    this.#chain = chain;
    this.#replay = new Replay(options.replay);
  }

  run({ node, flags }: Runtime): Promise<number> {
    const supervisor = new Supervisor({
      args: (role) => [JSON.stringify({ ...this.#runOptions(), ...role } satisfies RunOptions)],
      execPath: node,
      execArgv: flags,
      log: (message) => this.#report.log("error", message, {}),
      onLine: (line) => this.#onLine(line),
      onOutput: (line) => this.#report.text(line),
      onDev: (event) => this.#onEvent(event),
      drainTimeMs: DRAIN_MS,
      workers: this.#options.concurrency,
    });
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const)
      process.on(signal, () => supervisor.signal(signal));
    onNpxEnded(() => supervisor.signal("SIGTERM"));
    return supervisor.run();
  }

  #runOptions(): RunOptions {
    const { filters, trust, concurrency } = this.#options;
    return {
      configFile: this.#config,
      overlays: [],
      drainImmediately: true,
      concurrency,
      log: { level: "info", components: {}, escaped: false },
      serviceCluster: "",
      serviceNode: "",
      filters,
      trusted: trust,
      strict: false,
      fileFlush: { ...FILE_FLUSH, ms: 200 },
      allowUnknown: false,
      drainTimeMs: DRAIN_MS,
      parentShutdownMs: 1_000,
      adminAddressPath: "",
      addressFamily: "v4",
      takeover: false,
      controlSocket: "",
      controlSocketMode: 0o600,
      dev: true,
      inspectPort: this.#options.inspectPort,
    };
  }

  get #config(): string {
    return this.#options.configFile ?? this.#chain!.file;
  }

  #onEvent(event: DevEvent): void {
    if (event.type === "exchange") {
      const exchange = event.exchange as Exchange;
      if (this.#replay.add(exchange)) this.#report.exchange(exchange);
    } else if (event.type === "started") this.#onStarted(event);
    else if (event.type === "refused") this.#tell(() => this.#onRefused(event));
    else if (event.type === "mended") this.#tell(() => this.#report.mended(event.what));
    else this.#tell(() => this.#onCommitted(event));
  }

  #tell(tell: () => void | Promise<void>): void {
    this.#telling = this.#telling.then(tell);
  }

  #onStarted({ listeners, packages, inspector }: Extract<DevEvent, { type: "started" }>): void {
    const chain = this.#chain;
    this.#report.started({
      config: shortPath(this.#config),
      isOwnConfig: chain !== undefined,
      listeners: listeners.map(({ name, address }) => {
        const at =
          address.path ??
          `${address.ip.includes(":") ? `[${address.ip}]` : address.ip}:${address.port}`;
        return {
          name,
          address: at,
          try:
            name === "tcp" && chain ? `nc ${address.ip} ${address.port}` : `curl -i http://${at}/`,
        };
      }),
      filters: packages
        .filter((info) => chain?.leavesOut(info) !== true)
        .map(({ package: name, folder, group, problems }) => ({
          package: name,
          folder: shortPath(folder),
          placement: group === "builtin" ? "among the shipped ones" : "in its own sandbox",
          problems,
        })),
      workers: this.#options.concurrency,
      echo: chain?.upstreams ?? [],
      inspector,
    });
  }

  async #onRefused(outcome: Refused): Promise<void> {
    // The filter may need more config now, or be gone: then a newly generated config may mend that, and nothing is reported.
    if (!(await this.#chain?.fit())) this.#report.refused(outcome);
  }

  async #onCommitted(outcome: Committed): Promise<void> {
    const { changed, removed } = outcome;
    // If the generated config changes, another commit follows, and the requests are sent again then.
    const grown = this.#chain !== undefined && (await this.#chain.fit([...changed, ...removed]));
    const replayed = grown ? [] : await this.#replay.run();
    this.#report.committed(outcome, this.#options.concurrency, replayed);
  }

  /** Prints a line of the proxy's log, unless an event has told the same. */
  #onLine(line: string): void {
    let told: Record<string, unknown>;
    try {
      told = JSON.parse(line);
    } catch {
      this.#report.text(line);
      return;
    }
    const { level, msg, time: _time, of, ...fields } = told;
    if (of === "reload" && level !== "warn") return;
    if (level === "info" && fields.filter === undefined && of !== "console") return;
    this.#report.log(String(level), String(msg), fields);
  }
}

/** The generated config, and the echo upstreams that it leads to. */
class OwnChain {
  readonly file: string;
  readonly #options: FilterDevOptions;
  readonly #echoes: readonly Echo[];
  readonly #ports: ChainPorts;
  readonly #catalog: Catalog;
  /** Packages that the config uses. */
  #used: readonly string[] = [];
  #text = "";

  private constructor(
    options: FilterDevOptions,
    catalog: Catalog,
    file: string,
    echoes: readonly Echo[],
    ports: ChainPorts,
  ) {
    this.#options = options;
    this.#catalog = catalog;
    this.file = file;
    this.#echoes = echoes;
    this.#ports = ports;
  }

  /** Answers a string, the reason, if there is nothing to run. */
  static async make(options: FilterDevOptions): Promise<OwnChain | string> {
    const catalog = await Catalog.open(options.trust);
    const found = await packagesOf(catalog, options);
    if (found.all.length === 0 && found.broken === 0) return noFilters(options.filters);
    if (options.name !== undefined && found.used.length === 0 && found.broken === 0) {
      const names = found.all.map((info) => info.name).join(", ");
      return `no filter "${options.name}" in ${options.filters.map(shortPath).join(", ")}; there: ${names}`;
    }
    const folder = await mkdtemp(path.join(tmpdir(), "tsproxy-dev-"));
    const echoes = await Promise.all([httpEcho("one"), httpEcho("two"), tcpEcho()]);
    const http = await freePort(options.port);
    const ports = {
      http,
      tcp: await freePort(options.port === 0 ? 0 : http + 1),
      admin: await freePort(options.port === 0 ? 0 : http + 2),
      httpEcho: echoes.slice(0, 2).map((echo) => echo.port),
      tcpEcho: echoes[2]!.port,
      noTimeouts: options.inspectPort !== undefined,
    };
    const chain = new OwnChain(options, catalog, path.join(folder, "envoy.yaml"), echoes, ports);
    await chain.#write(found.used);
    return chain;
  }

  /** Whether another filter was asked for by its name. */
  leavesOut({
    package: name,
    problems,
  }: {
    package: string;
    problems: readonly unknown[];
  }): boolean {
    return this.#options.name !== undefined && !this.#used.includes(name) && problems.length === 0;
  }

  get upstreams(): string[] {
    return this.#echoes.map((echo) => `127.0.0.1:${echo.port}`);
  }

  /**
   * Generates the config again: these packages have changed, come or gone; none named: the config was refused. False: the file
   * stays as it is.
   */
  async fit(packages: readonly string[] = []): Promise<boolean> {
    if (packages.length > 0 && packages.every((name) => this.#used.includes(name))) return false;
    const { used, broken } = await packagesOf(this.#catalog, this.#options);
    // The config stays as it is while a package is broken, so that the package keeps its place in the chain.
    if (broken > 0) return false;
    return this.#write(used);
  }

  /** False: the file has this text already. */
  async #write(used: readonly PackageInfo[]): Promise<boolean> {
    this.#used = used.map((info) => info.package);
    const hasBalancer = used.some((info) => info.kind === "balancer");
    const httpEcho = hasBalancer ? this.#ports.httpEcho : this.#ports.httpEcho.slice(0, 1);
    const text = devConfig(used, { ...this.#ports, httpEcho });
    if (text === this.#text) return false;
    this.#text = text;
    await writeFile(this.file, text);
    return true;
  }

  async dispose(): Promise<void> {
    this.#catalog.dispose();
    for (const echo of this.#echoes) echo.close();
    await rm(path.dirname(this.file), { recursive: true, force: true });
  }
}

/**
 * Finds the dropped-in packages on disk. `used`: those that the generated chain shall have; `broken`: how many cannot be built.
 */
async function packagesOf(catalog: Catalog, { filters, name }: FilterDevOptions) {
  const units = (await catalog.units(filters)).filter(
    (unit) => unit.source.origin === "dropped-in",
  );
  const all = units.flatMap((unit) => unit.next?.infos ?? []);
  const isMeant = (info: PackageInfo) =>
    name === undefined || [info.name, info.package, path.basename(info.folder)].includes(name);
  const broken = units.filter((unit) => unit.next === undefined).length;
  return { all, used: all.filter(isMeant), broken };
}
