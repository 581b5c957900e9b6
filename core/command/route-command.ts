import { readFile, writeFile } from "node:fs/promises";
import { parse } from "yaml";
import { readLayers, valuesOf } from "../admin/runtime.ts";
import { type Loaded, loadConfig } from "../config/load.ts";
import { fileError } from "../file-error.ts";
import { FilterChainMatcher } from "../inside/filter-chain-match.ts";
import { Catalog } from "../packages/catalog.ts";
import { formatProblem, problem } from "../problem.ts";
import type { ListenerConfig, ModuleSource, PackageInfo, RuntimeValues } from "../protocol.ts";
import { Canary } from "../reload/canary.ts";

/** The package with the route tables. Core knows only its name, and its tools `route check` and `route explain`. */
const OWNER = "network/http_connection_manager";
/** The kind of extension that route tables use. */
const CHOOSER = "cluster_specifier";
const CLUSTERS = "service/cluster_manager";

export interface CheckOptions {
  readonly table: string;
  readonly expectations: string;
  readonly details: boolean;
  readonly onlyShowFailures: boolean;
  readonly detailedCoverage: boolean;
  readonly covall: boolean;
  /** Percent. */
  readonly failUnder: number;
  readonly output: string | undefined;
}

/** The answer of the tool `route check` (`checkRoutes` of the package). */
interface Checked {
  readonly tests: readonly {
    readonly name: string;
    readonly failures: readonly {
      readonly what: string;
      readonly expected: string;
      readonly actual: string;
      readonly line: string;
    }[];
  }[];
  readonly routes: number;
  readonly covered: readonly { readonly label: string; readonly share: number }[];
  readonly labels: readonly (readonly string[])[];
  readonly refused: readonly string[];
}

/** Envoy's router_check_tool: tests a route table with requests, without a proxy. Answers the exit code. */
export async function routeCheck(options: CheckOptions): Promise<number> {
  const table = await readDocument(options.table);
  const tests = await readDocument(options.expectations);
  const list = Array.isArray(tests) ? tests : (tests as { tests?: unknown[] } | undefined)?.tests;
  if (!Array.isArray(list)) {
    throw new Error(
      `${options.expectations}: a list of tests, or a map with "tests", belongs here`,
    );
  }
  return withTools([], async ({ load, tool }) => {
    const text = JSON.stringify(bootstrapOf(table));
    const modern = load(options.table, text);
    // A table does not say its API version: one that v3 refuses may be v2.
    const older = modern.ok ? modern : load(options.table, text, "v2");
    const loaded = older.ok ? older : modern;
    if (!loaded.ok) return refuse(options.table, loaded);
    warn(loaded.warnings);
    const config = configsOf(loaded.config.listeners[0]!)[0]!.config as { route_config: unknown };
    const input = { route_config: config.route_config, tests: list, older: older !== modern };
    const checked = (await tool("route check", input)) as Checked;
    return report(checked, options, table as WrittenTable);
  });
}

/** A bootstrap whose only connection manager has this route table. Its clusters need not exist. */
function bootstrapOf(table: unknown): object {
  const route_config = { ...(table as object), validate_clusters: false };
  const config = { stat_prefix: "check", route_config, http_filters: [] };
  const address = { socket_address: { address: "127.0.0.1", port_value: 0 } };
  const filters = [{ name: OWNER, config }];
  return {
    static_resources: { listeners: [{ name: "check", address, filter_chains: [{ filters }] }] },
  };
}

/** The part of a table that its routes are named by. */
interface WrittenTable {
  readonly virtual_hosts?: readonly {
    readonly name: string;
    readonly routes?: readonly { readonly name?: string; readonly match?: object }[];
  }[];
}

/** Prints what router_check_tool prints, and failed tests even without `--details`. Answers the exit code. */
async function report(
  checked: Checked,
  options: CheckOptions,
  table: WrittenTable,
): Promise<number> {
  const { details, onlyShowFailures, covall, detailedCoverage, failUnder, output } = options;
  const out = (line: string) => process.stdout.write(`${line}\n`);
  const err = (line: string) => process.stderr.write(`${line}\n`);
  for (const pattern of checked.refused) {
    err(`"${pattern}" is not a regular expression of RE2: Envoy of today and tsproxy refuse it`);
  }
  for (const { name, failures } of checked.tests) {
    if (failures.length > 0) for (const line of [name, ...failures.map((f) => f.line)]) err(line);
    else if (details && !onlyShowFailures) out(name);
  }
  if (output !== undefined) await writeFile(output, resultsOf(checked, onlyShowFailures));
  if (checked.tests.some(({ failures }) => failures.length > 0)) return 1;
  if (covall || detailedCoverage)
    for (const line of missingTests(checked, table, covall)) out(line);
  const { covered, routes } = checked;
  const sum = covall ? covered.reduce((all, { share }) => all + share, 0) : covered.length;
  const coverage = routes === 0 ? 0 : (100 * sum) / routes;
  out(`Current route coverage: ${Number(coverage.toPrecision(6))}%`);
  if (coverage >= failUnder) return 0;
  err(`Failed to meet coverage requirement: ${failUnder}%`);
  return 1;
}

/** The tool's ValidationResult as JSON. */
function resultsOf({ tests }: Checked, onlyFailures: boolean): string {
  const test_results = tests
    .filter(({ failures }) => failures.length > 0 || !onlyFailures)
    .map(({ name, failures }) => ({
      test_name: name,
      test_passed: failures.length === 0,
      ...(failures.length > 0 && {
        failures: failures.map(({ what, expected, actual }) => ({ what, expected, actual })),
      }),
    }));
  return `${JSON.stringify({ test_results }, undefined, 2)}\n`;
}

function missingTests(
  { labels, covered }: Checked,
  table: WrittenTable,
  byMatch: boolean,
): readonly string[] {
  const known = new Set(covered.map(({ label }) => label));
  return (table.virtual_hosts ?? []).flatMap((host, h) =>
    (host.routes ?? []).flatMap((route, r) => {
      if (known.has(labels[h]?.[r] ?? "")) return [];
      const which = byMatch
        ? `route: ${textFormat(route.match ?? {}).join("\n")}`
        : `route name: ${route.name ?? ""}-routes[${r}]`;
      return [`Missing test for host: ${host.name}, ${which}`];
    }),
  );
}

/** The lines of a message in protobuf's text format. */
function textFormat(message: object, indent = ""): readonly string[] {
  return Object.entries(message).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).flatMap((each) => {
      if (typeof each !== "object" || each === null) {
        return [`${indent}${name}: ${JSON.stringify(each)}`];
      }
      return [`${indent}${name} {`, ...textFormat(each, `${indent}  `), `${indent}}`];
    }),
  );
}

export interface ExplainOptions {
  readonly file: string;
  /** `GET https://host/path` */
  readonly request: string;
  readonly headers: readonly string[];
  readonly listener: string | undefined;
  readonly filters: readonly string[];
}

/** Prints which listener, filter chain, virtual host, route and cluster would serve a request, and why others did not match. */
export async function routeExplain(options: ExplainOptions): Promise<number> {
  const asked = parseRequest(options.request, options.headers);
  const text = await readText(options.file);
  return withTools(options.filters, async ({ load, tool }) => {
    const loaded = load(options.file, text);
    if (!loaded.ok) return refuse(options.file, loaded);
    warn(loaded.warnings);
    const { listeners, services, node, runtime = [] } = loaded.config;
    const values = valuesOf(readLayers(runtime, node.cluster));
    const clusters = services.flatMap(({ package: name, config }) =>
      name === CLUSTERS ? (config as readonly { readonly name: string }[]) : [],
    );
    const names = clusters.map((cluster) => cluster.name);
    const chosen = listeners.filter((each) =>
      options.listener === undefined
        ? asked.port === undefined || each.address.port === asked.port
        : each.name === options.listener,
    );
    if (chosen.length === 0) {
      const all = listeners.map((each) => `${each.name} (port ${each.address.port})`).join(", ");
      process.stdout.write(`no listener takes it; there are ${all}\n`);
      return 1;
    }
    for (const listener of chosen) {
      const lines = await explainListener(
        listener,
        asked,
        { clusters: names, runtime: values },
        tool,
      );
      process.stdout.write(`listener: ${listener.name}\n${lines.map((l) => `  ${l}\n`).join("")}`);
    }
    return 0;
  });
}

type Tool = (name: string, input: unknown) => unknown;

async function explainListener(
  listener: ListenerConfig,
  asked: AskedRequest,
  around: { readonly clusters: readonly string[]; readonly runtime: RuntimeValues },
  tool: Tool,
): Promise<readonly string[]> {
  const chains = listener.filterChains.map((chain, k) => ({
    match: chain.match,
    value: { chain, label: chain.name === "" ? `filter_chains[${k}]` : chain.name },
  }));
  const client = { ip: "127.0.0.1", port: 40_000 };
  const found = new FilterChainMatcher(chains).choose({
    localAddress: { ip: listener.address.ip, port: listener.address.port },
    remoteAddress: client,
    directAddress: client,
    serverName: asked.tls ? asked.host : "",
    transportProtocol: asked.tls ? "tls" : "raw_buffer",
    applicationProtocols: [],
  });
  const fallback = listener.defaultFilterChain;
  const chosen = found ?? (fallback && { chain: fallback, label: "default_filter_chain" });
  if (chosen === undefined) return ["filter chain: none matches; the connection is closed"];
  const lines = [`filter chain: ${chosen.label}`];
  const manager = chosen.chain.filters.find((filter) => filter.package === OWNER);
  if (manager === undefined) {
    return [
      ...lines,
      `no routes: its filters are ${chosen.chain.filters.map((f) => f.package).join(", ")}`,
    ];
  }
  const { method, authority, path, tls, headers } = asked;
  const input = { config: manager.config, ...around, method, authority, path, tls, headers };
  return [...lines, ...((await tool("route explain", input)) as string[])];
}

interface AskedRequest {
  readonly method: string;
  readonly host: string;
  readonly authority: string;
  /** Undefined: the URL names none. */
  readonly port: number | undefined;
  readonly path: string;
  readonly tls: boolean;
  readonly headers: readonly (readonly [string, string])[];
}

function parseRequest(request: string, headers: readonly string[]): AskedRequest {
  if (/^[^#]*:\/\/[^#]*#/.test(request)) {
    throw new Error(
      `--request "${request}": a client keeps the "#" and what follows to itself; leave them out, or write %23`,
    );
  }
  // User information is for the client alone. A CONNECT without a path is that of HTTP/1.1, which has none.
  const form = /^(?:([A-Z]+)\s+)?(https?):\/\/(?:[^/?#@\s]*@)?([^/?#@\s]*)([^#\s]*)$/;
  const match = form.exec(request.trim());
  if (match === null) {
    throw new Error(`--request "${request}": write "GET https://host/path"`);
  }
  const [, method = "GET", scheme, authority = "", rest = ""] = match;
  const port = /:(\d+)$/.exec(authority)?.[1];
  const pairs = headers.map((line): readonly [string, string] => {
    const colon = line.indexOf(":");
    if (colon < 1) throw new Error(`-H "${line}": write "name: value"`);
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()];
  });
  const host = pairs.find(([name]) => name === "host")?.[1];
  return {
    method,
    host: authority.replace(/:\d+$/, ""),
    authority: host ?? authority,
    port: port === undefined ? undefined : Number(port),
    path: rest.startsWith("/") || (method === "CONNECT" && rest === "") ? rest : `/${rest}`,
    tls: scheme === "https",
    headers: pairs.filter(([name]) => name !== "host"),
  };
}

interface Tools {
  load(file: string, text: string, era?: "v2"): Loaded;
  tool: Tool;
}

/** Calls `use` with the packages of route tables loaded in a canary, where nothing takes effect. */
async function withTools(
  directories: readonly string[],
  use: (tools: Tools) => Promise<number>,
): Promise<number> {
  const catalog = await Catalog.open([]);
  const units = await catalog.units(directories);
  const built = units.flatMap((unit) => unit.next ?? []);
  const broken = units.flatMap((unit) => unit.broken ?? []);
  const packages: PackageInfo[] = built.flatMap(({ infos }) => infos);
  const modules: ModuleSource[] = built.flatMap((made) => made.modules);
  const canary = new Canary({
    prelude: catalog.preludes,
    node: () => ({ id: "", cluster: "" }),
    sandboxed: "left out",
  });
  try {
    const needed = new Set([
      OWNER,
      ...packages.filter((p) => p.kind === CHOOSER).map((p) => p.package),
    ]);
    const used = modules.filter((module) => needed.has(module.package));
    await canary.prepare({ generation: 1, modules: used, removed: [], config: undefined });
    await canary.commit(1);
    return await use({
      load: (file, text, era) =>
        loadConfig({ file, text }, packages, {
          strict: false,
          explains: true,
          broken,
          ...(era && { era }),
        }),
      tool: (name, input) => canary.tool(OWNER, name, input),
    });
  } finally {
    canary.dispose();
    catalog.dispose();
  }
}

function configsOf(listener: ListenerConfig): ListenerConfig["filterChains"][number]["filters"] {
  return listener.filterChains.flatMap((chain) => chain.filters);
}

/** Names what was left out: its routes are told as if it were not there. */
function warn(warnings: Loaded["warnings"]): void {
  for (const warning of warnings)
    process.stderr.write(`warning: ${formatProblem({ ...warning, frame: "" })}\n`);
}

function refuse(file: string, loaded: Loaded & { readonly ok: false }): number {
  for (const error of loaded.errors) {
    process.stderr.write(`${formatProblem({ ...error, frame: "" })}\n`);
  }
  process.stderr.write(`${formatProblem(problem(`${file}: refused`))}\n`);
  return 1;
}

function readText(file: string): Promise<string> {
  return readFile(file, "utf8").catch((error: unknown) => {
    throw new Error(`${file}: cannot be read: ${fileError(error)}`);
  });
}

/** Reads YAML or JSON, which may have trailing commas, as some of Envoy's own files do. */
async function readDocument(file: string): Promise<unknown> {
  const text = await readText(file);
  try {
    return parse(text);
  } catch (error) {
    throw new Error(`${file}: ${(error as Error).message.split("\n")[0]}`);
  }
}
