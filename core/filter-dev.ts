import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Catalog } from "./catalog.ts";
import { type ChainPorts, devConfig } from "./dev-chain.ts";
import { type Echo, httpEcho, tcpEcho } from "./dev-echo.ts";
import type { DevEvent, Exchange } from "./dev-events.ts";
import { Replay } from "./dev-replay.ts";
import { type Committed, type DevReport, devReport, type Refused } from "./dev-report.ts";
import { freePort } from "./free-port.ts";
import type { RunOptions, Runtime } from "./options.ts";
import { ownModule } from "./own-files.ts";
import { noFilters, refuse, shortPath } from "./problem.ts";
import type { PackageInfo } from "./protocol.ts";
import { Supervisor } from "./supervisor.ts";

export interface FilterDevOptions {
  /** Only this one stands in the chain that is made; undefined: all that are found. */
  readonly name: string | undefined;
  /** Directories of packages. */
  readonly filters: readonly string[];
  /** Undefined: a chain is made. */
  readonly configFile: string | undefined;
  readonly trust: readonly string[];
  /** Of the chain that is made: 0 takes any. */
  readonly port: number;
  readonly concurrency: number;
  /** How many of the last requests are sent again. */
  readonly replay: number;
  readonly json: boolean;
  /** Debuggers attach there; undefined: nowhere. */
  readonly inspectPort: number | undefined;
}

/** A proxy, upstreams that echo, and a word about every save, in one terminal. */
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

class Dev {
  readonly #options: FilterDevOptions;
  readonly #report: DevReport;
  readonly #chain: OwnChain | undefined;
  readonly #replay: Replay;
  /** One outcome at a time: its replays end before the next is told. */
  #telling: Promise<void> = Promise.resolve();

  constructor(options: FilterDevOptions, report: DevReport, chain: OwnChain | undefined) {
    this.#options = options;
    this.#report = report;
    this.#chain = chain;
    this.#replay = new Replay(options.replay);
  }

  run({ node, flags }: Runtime): Promise<number> {
    const supervisor = new Supervisor({
      main: fileURLToPath(ownModule("main")),
      args: () => [JSON.stringify(this.#runOptions())],
      execPath: node,
      execArgv: flags,
      log: (message) => this.#report.log("error", message, {}),
      onLine: (line) => this.#onLine(line),
      onOutput: (line) => this.#report.text(line),
      onDev: (event) => this.#onEvent(event),
    });
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const)
      process.on(signal, () => supervisor.signal(signal));
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
      fileFlushIntervalMsec: 200,
      allowUnknown: false,
      drainTimeMs: 1_000,
      parentShutdownMs: 1_000,
      adminAddressPath: "",
      addressFamily: "v4",
      takeover: false,
      controlSocket: "",
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
      filters: packages.map(({ package: name, folder, group, problems }) => ({
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
    // A filter that wants more of its config, or is gone, is met halfway.
    if (!(await this.#chain?.fit())) this.#report.refused(outcome);
  }

  async #onCommitted(outcome: Committed): Promise<void> {
    const { changed, removed } = outcome;
    // Told of once the config that uses it is there.
    const grown = this.#chain !== undefined && (await this.#chain.fit([...changed, ...removed]));
    const replayed = grown ? [] : await this.#replay.run();
    this.#report.committed(outcome, this.#options.concurrency, replayed);
  }

  /** The proxy's log, but for what its events have told. */
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
    if (level === "info" && fields.filter === undefined) return;
    this.#report.log(String(level), String(msg), fields);
  }
}

/** The config that is made where none was given, and what stands behind it. */
class OwnChain {
  readonly file: string;
  readonly #options: FilterDevOptions;
  readonly #echoes: readonly Echo[];
  readonly #ports: ChainPorts;
  readonly #catalog: Catalog;
  /** Packages that stand in it. */
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

  /** A string says why there is none. */
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

  get upstreams(): string[] {
    return this.#echoes.map((echo) => `127.0.0.1:${echo.port}`);
  }

  /** These have changed, come or gone, or the config was refused (none): it takes that up. False: there was no need to. */
  async fit(packages: readonly string[] = []): Promise<boolean> {
    if (packages.length > 0 && packages.every((name) => this.#used.includes(name))) return false;
    const { used, broken } = await packagesOf(this.#catalog, this.#options);
    // What is broken keeps its place until it is mended.
    if (broken > 0) return false;
    return this.#write(used);
  }

  /** False: that is what stands there. */
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

/** Dropped-in packages as they lie there now; `used` are those that a chain shall have. */
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
