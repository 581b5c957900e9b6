import { type ChildProcess, fork } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { RunOptions, Runtime, ToSupervisor } from "../options.ts";
import { ownModule } from "../own-files.ts";
import { FILE_FLUSH } from "../protocol.ts";

export interface BenchProxyOptions {
  /** Name of its config file in `folder`. */
  readonly name: string;
  readonly folder: string;
  readonly port: number;
  readonly adminPort: number;
  readonly upstreamPort: number;
  /** Entries of `http_filters`, before the router. */
  readonly httpFilters: readonly unknown[];
  /** Directories of packages. */
  readonly filters: readonly string[];
  readonly trusted: readonly string[];
}

/** A proxy process with one worker, to be measured. */
export class BenchProxy {
  readonly port: number;
  readonly #adminPort: number;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, port: number, adminPort: number) {
    this.#child = child;
    this.port = port;
    this.#adminPort = adminPort;
  }

  /** Starts the proxy. If that fails, rejects with what the proxy has logged. */
  static async start(options: BenchProxyOptions, { node, flags }: Runtime): Promise<BenchProxy> {
    const configFile = path.join(options.folder, `${options.name}.json`);
    await writeFile(configFile, configOf(options));
    const main = fileURLToPath(ownModule("boot"));
    const child = fork(main, [JSON.stringify(runOptions(configFile, options))], {
      execPath: node,
      execArgv: [...flags],
      stdio: ["ignore", "ignore", "pipe", "ipc"],
    });
    let said = "";
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      said = (said + text).slice(-64 * 1024);
    });
    await new Promise<void>((resolve, reject) => {
      child.on("message", ({ type }: ToSupervisor) => type === "ready" && resolve());
      child.on("error", reject);
      child.on("close", () => reject(new Error(wordsOf(said))));
    });
    return new BenchProxy(child, options.port, options.adminPort);
  }

  /** Microseconds of CPU that it has used, with all its threads. */
  get cpuUs(): number {
    const tasks = `/proc/${this.#child.pid}/task`;
    let ns = 0;
    for (const task of readdirSync(tasks)) {
      try {
        ns += Number(readFileSync(`${tasks}/${task}/schedstat`, "utf8").split(" ")[0]);
      } catch {
        // The thread has ended since the list was read.
      }
    }
    return ns / 1000;
  }

  /** Counters whose names begin with `prefix`, by the rest of their names. */
  async counters(prefix: string): Promise<ReadonlyMap<string, number>> {
    const filter = encodeURIComponent(`^${prefix.replaceAll(".", "\\.")}`);
    const answer = await fetch(`http://127.0.0.1:${this.#adminPort}/stats?filter=${filter}`);
    const lines = (await answer.text()).split("\n");
    return new Map(
      lines
        .map((line) => /^(.+): (\d+)$/.exec(line))
        .filter((found) => found !== null)
        .map(([, name, value]) => [name!.slice(prefix.length), Number(value)]),
    );
  }

  stop(): void {
    // Killed at once: nobody needs the rest of its requests.
    this.#child.kill("SIGKILL");
  }
}

/** The messages of its JSON log, as plain lines. */
function wordsOf(said: string): string {
  const lines = said.split("\n").map((line) => {
    try {
      return String((JSON.parse(line) as { msg?: unknown }).msg);
    } catch {
      return line;
    }
  });
  return lines.join("\n").trim();
}

function runOptions(configFile: string, { filters, trusted }: BenchProxyOptions): RunOptions {
  return {
    configFile,
    overlays: [],
    concurrency: 1,
    log: { level: "error", components: {}, escaped: false },
    serviceCluster: "",
    serviceNode: "",
    filters,
    trusted,
    strict: false,
    fileFlush: FILE_FLUSH,
    allowUnknown: false,
    drainTimeMs: 0,
    drainImmediately: false,
    parentShutdownMs: 0,
    adminAddressPath: "",
    addressFamily: "v4",
    takeover: false,
    controlSocket: "",
    controlSocketMode: 0o600,
  };
}

function configOf({ port, adminPort, upstreamPort, httpFilters }: BenchProxyOptions): string {
  const at = (port_value: number) => ({ socket_address: { address: "127.0.0.1", port_value } });
  const routes = [{ match: { prefix: "/" }, route: { cluster: "upstream" } }];
  const manager = {
    stat_prefix: "http",
    route_config: { name: "bench", virtual_hosts: [{ name: "all", domains: ["*"], routes }] },
    http_filters: [...httpFilters, { name: "http/router", config: {} }],
  };
  const filters = [{ name: "network/http_connection_manager", config: manager }];
  const lb_endpoints = [{ endpoint: { address: at(upstreamPort) } }];
  const upstream = {
    name: "upstream",
    type: "STATIC",
    connect_timeout: "1s",
    load_assignment: { cluster_name: "upstream", endpoints: [{ lb_endpoints }] },
  };
  return JSON.stringify({
    static_resources: {
      listeners: [{ name: "main", address: at(port), filter_chains: [{ filters }] }],
      clusters: [upstream],
    },
    admin: { address: at(adminPort) },
  });
}
