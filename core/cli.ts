import { existsSync, realpathSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Command, Help, InvalidArgumentError, Option } from "commander";
import {
  addRunFlags,
  openFiles,
  type RunFlags,
  runOptions,
  warningsOf,
  withoutIgnored,
} from "./command/flags.ts";
import { didYouMean } from "./config/diagnostic.ts";
import type { Runtime } from "./options.ts";
import { isShippedTree } from "./packages/packages.ts";
import { tooFewFiles } from "./process/open-files.ts";
import { VERSION } from "./version.ts";

interface CheckFlags {
  readonly configPath: string | undefined;
  readonly testPath: string | undefined;
  readonly details: boolean;
  readonly onlyShowFailures: boolean;
  readonly detailedCoverage: boolean;
  readonly covall: boolean;
  readonly failUnder: number;
  readonly outputPath: string | undefined;
}

interface ExplainFlags {
  readonly request: string;
  readonly header: string[];
  readonly listener: string | undefined;
  readonly filters: string[];
}

interface ProfileFlags {
  readonly seconds: number;
  readonly heap: boolean;
  readonly heapSnapshot: boolean;
  readonly output?: string;
  readonly admin: string;
  readonly json: boolean;
}

interface BenchFlags {
  readonly configPath?: string;
  readonly filters: string[];
  readonly seconds: number;
  readonly path: string;
  readonly header: string[];
  readonly connections: number;
  readonly json: boolean;
}

/** Default port of --inspect; Node's own inspector uses 9229. */
const INSPECT_PORT = 9230;

interface DevFlags {
  readonly configPath?: string;
  readonly filters: string[];
  readonly trust: string[];
  readonly port: number;
  readonly concurrency?: number;
  readonly replay: number;
  readonly json: boolean;
  readonly inspect?: number | true;
}

/**
 * Runs the command that `argv` names; answers the exit code. Each command imports its own code, so that the supervisor stays
 * small.
 */
export async function cli(
  argv: readonly string[],
  runtime: Runtime = { node: process.execPath, flags: process.execArgv },
): Promise<number> {
  let code = 0;
  const program = new Command("tsproxy")
    .description(
      "A proxy that runs Envoy's configuration files, and filters written in TypeScript that reload while traffic flows.",
    )
    .version(VERSION, "-V, --version")
    .configureHelp({ optionDescription: describeOption })
    .exitOverride();

  addRunFlags(
    program
      .command("run", { isDefault: true })
      .description(
        "serve traffic; edits of the config and of filters are taken up as they are saved",
      ),
  )
    .addOption(filtersOption())
    .addOption(trustOption())
    .action(async (flags: RunFlags, command: Command) => {
      for (const warning of warningsOf(command)) process.stderr.write(`warning: ${warning}\n`);
      code = await run(flags, runtime);
    });

  program
    .command("validate")
    .description("check config files; the exit code is 1 if any is refused")
    .argument("[file...]", "Envoy bootstraps")
    .option("-c, --config-path <file>", "one of them, as `run` is told it")
    .option("--json", "print a list of { file, ok, errors, warnings }", false)
    .option("--strict", "refuse fields that Envoy knows and tsproxy does not implement", false)
    .addOption(filtersOption())
    .addOption(trustOption())
    .action(
      async (
        named: string[],
        flags: {
          configPath?: string;
          json: boolean;
          strict: boolean;
          filters: string[];
          trust: string[];
        },
        command: Command,
      ) => {
        const files = flags.configPath === undefined ? named : [flags.configPath, ...named];
        if (files.length === 0) command.error("error: name the files to check");
        const { validate } = await import("./command/validate.ts");
        code = await validate({
          files: files.map((name) => ({ name, overlays: [] })),
          allowUnknown: false,
          ...flags,
          filters: (file) => filterDirectories(flags.filters, file),
        });
      },
    );

  program
    .command("init")
    .description("write a config to start from, and the schema for your editor")
    .argument("[file]", "what to write", "tsproxy.yaml")
    .option("--json", "print { file, schema, ok, errors }", false)
    .action(async (file: string, { json }: { json: boolean }) => {
      const { init } = await import("./command/init.ts");
      code = await init(file, { filters: filterDirectories([], file), trust: [] }, json);
    });

  program
    .command("schema")
    .description("print the JSON Schema of configs, as the filters that are there take them")
    .option("-c, --config-path <file>", "the config whose filters/ directory is meant")
    .option("--json", "it is JSON in any case", false)
    .addOption(filtersOption())
    .addOption(trustOption())
    .action(async (flags: { configPath?: string; filters: string[]; trust: string[] }) => {
      const { printSchema } = await import("./command/init.ts");
      const filters = filterDirectories(flags.filters, flags.configPath);
      code = await printSchema({ filters, trust: flags.trust });
    });

  program
    .command("config")
    .description("work on config files")
    .command("upgrade")
    .description("print a config in Envoy's v3, comments and all")
    .argument("<file>", "an Envoy bootstrap, v2 or v3")
    .option("--json", "print { file, ok, from, text, errors }", false)
    .action(async (file: string, flags: { json: boolean }) => {
      const { configUpgrade } = await import("./command/config-upgrade.ts");
      code = configUpgrade(file, flags.json);
    });

  const route = program.command("route").description("ask route tables without a proxy");
  route
    .command("check")
    .description("send requests through a route table and compare (Envoy's router_check_tool)")
    .argument("[table]", "a RouteConfiguration, YAML or JSON")
    .argument("[expectations]", "tests: requests, and what is to become of them")
    .option("-c, --config-path <file>", "the table, as Envoy's tool is told it")
    .option("-t, --test-path <file>", "the expectations, likewise")
    .option("-d, --details", "name the tests that pass as well", false)
    .option("--only-show-failures", "name failing tests alone", false)
    .option("--detailed-coverage", "name routes that no test is about", false)
    .option(
      "--covall",
      "count every fact of a route, not the route once, and tell what untested routes match",
      false,
    )
    .option("-f, --fail-under <percent>", "fail if fewer routes are covered", parsePercent, 0)
    .option("-o, --output-path <file>", "write the results as JSON")
    .option(
      "--disable-deprecation-check",
      "accepted for Envoy's sake: old fields always work",
      false,
    )
    .action(async (first: string | undefined, second: string | undefined, flags: CheckFlags) => {
      const table = flags.configPath ?? first;
      const expectations = flags.testPath ?? second;
      if (table === undefined || expectations === undefined) {
        throw new Error("route check: a table (-c) and its expectations (-t) are both needed");
      }
      const { routeCheck } = await import("./command/route-command.ts");
      code = await routeCheck({ table, expectations, ...flags, output: flags.outputPath });
    });
  route
    .command("explain")
    .description("tell which route of a config serves a request, and why those before it do not")
    .argument("<file>", "an Envoy bootstrap")
    .requiredOption("--request <request>", 'method and URL: "GET https://host/path"')
    .option("-H, --header <line>", "a header of the request; may be repeated", collect, [])
    .option("--listener <name>", "of this listener alone (default: those of the URL's port)")
    .addOption(filtersOption())
    .action(async (file: string, flags: ExplainFlags) => {
      const { routeExplain } = await import("./command/route-command.ts");
      code = await routeExplain({
        file,
        request: flags.request,
        headers: flags.header,
        listener: flags.listener,
        filters: filterDirectories(flags.filters, file),
      });
    });

  const filter = program.command("filter").description("make filters, and see what is there");
  filter
    .command("new")
    .description("write a filter package that works, with its test")
    .argument("<name>", "what configs will call it")
    .option(
      "--kind <kind>",
      "where it stands: http, network, listener, access_log, balancer or service",
      "http",
    )
    .option("--dir <directory>", "where packages lie", "filters")
    .option("--json", "print { name, kind, written, error }", false)
    .action(async (name: string, flags: { kind: string; dir: string; json: boolean }) => {
      const { filterNew } = await import("./command/filter-new.ts");
      code = await filterNew({ name, ...flags });
    });
  filter
    .command("test")
    .description("run the tests of filters; vitest and the SDK's testing kit come with the proxy")
    .argument("[name...]", "only tests whose path has one of these in it")
    .option("--dir <directory>", "where packages lie", "filters")
    .option("--watch", "run them again when something is saved", false)
    .option("--json", "print what vitest's JSON reporter prints", false)
    .action(async (names: string[], flags: { dir: string; watch: boolean; json: boolean }) => {
      const { filterTest } = await import("./command/filter-test.ts");
      code = await filterTest({ names, ...flags });
    });
  filter
    .command("dev")
    .description("run filters behind a port, with a word about every save and what it changes")
    .argument("[name]", "only this one (default: all that are found)")
    .option("-c, --config-path <file>", "your own config in the place of one that is made")
    .addOption(filtersOption())
    .addOption(trustOption())
    .option("-p, --port <n>", "of the config that is made; 0: any", parseCount, 8400)
    .option("--concurrency <n>", "worker threads (default: 2, and 1 with --inspect)", parseCount)
    .option(
      "--inspect [port]",
      "debuggers attach there to each sandboxed filter (9230)",
      parseCount,
    )
    .option("--replay <n>", "so many of the last requests are sent again", parseCount, 10)
    .option("--json", "print a JSON object a line", false)
    .action(async (name: string | undefined, flags: DevFlags) => {
      const { filterDev } = await import("./command/filter-dev.ts");
      const place = devPlace(name, flags);
      const { inspect, concurrency, configPath: configFile } = flags;
      const inspectPort = inspect === true ? INSPECT_PORT : inspect;
      // One worker only, so that every request passes through the isolates that are debugged.
      const workers = inspectPort === undefined ? (concurrency ?? 2) : 1;
      code = await filterDev(
        { ...flags, ...place, configFile, inspectPort, concurrency: workers },
        runtime,
      );
    });
  filter
    .command("check")
    .description("check the types of filters, their tests, and the scripts of configs")
    .argument("[name...]", "only these (default: all that are found)")
    .option(
      "-c, --config-path <file>",
      "a config whose scripts are meant; may be repeated",
      collect,
      [],
    )
    .addOption(filtersOption())
    .addOption(trustOption())
    .option("--json", "print { ok, filters, scripts, errors }", false)
    .action(
      async (
        names: string[],
        flags: { configPath: string[]; filters: string[]; trust: string[]; json: boolean },
      ) => {
        const { filterCheck } = await import("./command/filter-check.ts");
        const filters = filtersHere(flags.filters, flags.configPath);
        code = await filterCheck({ ...flags, names, configs: flags.configPath, filters });
      },
    );
  filter
    .command("info")
    .description(
      "tell what is known of a filter: kind, version, config, hooks, stats, where it is used",
    )
    .argument("<name>", "as configs call it, or kind/name")
    .option(
      "-c, --config-path <file>",
      "a config to look for uses in; may be repeated",
      collect,
      [],
    )
    .addOption(filtersOption())
    .addOption(trustOption())
    .option("--json", "print JSON, with the schema", false)
    .action(
      async (
        name: string,
        flags: { configPath: string[]; filters: string[]; trust: string[]; json: boolean },
      ) => {
        const { filterInfo } = await import("./command/filter-info.ts");
        const filters = filtersHere(flags.filters, flags.configPath);
        code = await filterInfo({ ...flags, name, configs: flags.configPath, filters });
      },
    );
  filter
    .command("build")
    .alias("pack")
    .description(
      "make one file of each filter, which works dropped into filters/ as its folder does",
    )
    .argument("[name...]", "only these (default: all that are found)")
    .option("-o, --out <directory>", "where they are written", ".")
    .addOption(filtersOption())
    .addOption(trustOption())
    .option("--json", "print { built: [{ package, version, file, bytes, hash }] }", false)
    .action(
      async (
        names: string[],
        flags: { out: string; filters: string[]; trust: string[]; json: boolean },
      ) => {
        const { filterBuild } = await import("./command/filter-build.ts");
        const { filters } = devPlace(names[0], flags);
        code = await filterBuild({ ...flags, names, filters });
      },
    );
  filter
    .command("profile")
    .description("write a profile of one sandboxed filter of a proxy that runs, for DevTools")
    .argument("<name>", "as configs call it, or kind/name")
    .option("--seconds <n>", "how long, up to 60", parseCount, 5)
    .option("--heap", "who allocates, in the place of where time goes", false)
    .option("--heap-snapshot", "all that is there when the time is over", false)
    .option("-o, --output <file>", "what is written (default: the filter's name)")
    .option("--admin <url>", "the proxy's admin address", "http://127.0.0.1:9901")
    .option("--json", "print { file, kind, bytes }", false)
    .action(async (name: string, flags: ProfileFlags) => {
      const { filterProfile } = await import("./command/filter-profile.ts");
      code = await filterProfile({ name, ...flags });
    });
  filter
    .command("bench")
    .description(
      "measure what an http filter costs a request: CPU against none, by phase, bytes that cross",
    )
    .argument("<name>", "as configs call it, kind/name, or its file or folder")
    .option("-c, --config-path <file>", "take the filter's entry of that config")
    .addOption(filtersOption())
    .option("--seconds <n>", "how long is measured, all in all", parseCount, 12)
    .option("--path <path>", "what is asked for", "/")
    .option("-H, --header <line>", "a header of the requests; may be repeated", collect, [])
    .option("--connections <n>", "that ask at a time", parseCount, 32)
    .option("--json", "print JSON", false)
    .action(async (name: string, flags: BenchFlags) => {
      const { filterBench } = await import("./command/filter-bench.ts");
      const { configPath: configFile, header: headers } = flags;
      const filters = filtersHere(flags.filters, configFile === undefined ? [] : [configFile]);
      code = await filterBench({ ...flags, name, configFile, headers, filters }, runtime);
    });
  filter
    .command("list")
    .description("list packages: kind, origin, state, and what is wrong with them")
    .option("-c, --config-path <file>", "the config whose filters/ directory is meant")
    .addOption(filtersOption())
    .addOption(trustOption())
    .option("--json", "print JSON", false)
    .option("--admin <url>", "ask the proxy behind this admin address what it runs")
    .action(
      async (flags: {
        configPath?: string;
        filters: string[];
        trust: string[];
        json: boolean;
        admin?: string;
      }) => {
        const { listFilters } = await import("./command/filter-list.ts");
        const configs = flags.configPath === undefined ? [] : [flags.configPath];
        const filters = filtersHere(flags.filters, configs);
        code = await listFilters({ ...flags, named: flags.filters, filters });
      },
    );

  tellHelp(program, "tsproxy");
  // `run` is the default command, so commander would take an unknown command for an argument of `run`.
  const [first] = argv;
  const names = program.commands.map((command) => command.name());
  if (first !== undefined && !first.startsWith("-") && ![...names, "help"].includes(first)) {
    const near = existsSync(first) ? `to run a config: -c ${first}` : didYouMean(first, names);
    process.stderr.write(`no command "${first}"; ${near ?? "tsproxy --help tells more"}\n`);
    return 1;
  }
  try {
    const isRun = first === "run" || first?.startsWith("-");
    await program.parseAsync([...(isRun ? withoutIgnored(argv) : argv)], { from: "user" });
  } catch (error) {
    // An error of commander's: it has printed its message already.
    if (error instanceof Error && "exitCode" in error) return Number(error.exitCode);
    process.stderr.write(`tsproxy: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  }
  return code;
}

/** After a mistake each command names its own help. */
function tellHelp(command: Command, words: string): void {
  command.showHelpAfterError(`(${words} --help tells more)`);
  for (const own of command.commands) tellHelp(own, `${words} ${own.name()}`);
}

async function run(flags: RunFlags, runtime: Runtime): Promise<number> {
  if (flags.hotRestartVersion) {
    process.stdout.write("disabled: proxies find each other by --takeover\n");
    return 0;
  }
  const filters = filterDirectories(flags.filters, flags.configPath);
  const options = runOptions(flags, filters);
  if (flags.mode !== "serve") {
    const { validate } = await import("./command/validate.ts");
    const { configFile: name, configText: text, overlays, strict, allowUnknown } = options;
    return validate({
      files: [{ name: name === "" ? "--config-yaml" : name, text, overlays }],
      json: false,
      strict,
      allowUnknown,
      trust: flags.trust,
      components: options.log.components,
      filters: () => filters,
    });
  }
  const tooFew = tooFewFiles(options.concurrency);
  if (tooFew !== undefined) {
    process.stderr.write(`${tooFew}\n`);
    return 1;
  }
  openFiles(flags);
  const { superviseProxy } = await import("./process/supervisor.ts");
  return superviseProxy(options, runtime);
}

/**
 * The directories given with --filters; without any, `filters/` beside the config, which may be made later. Never that of
 * the shipped filters.
 */
function filterDirectories(named: readonly string[], configFile: string | undefined): string[] {
  for (const directory of named)
    if (isShippedTree(directory))
      throw new Error(
        `--filters ${directory}: these are the shipped filters, which are always there; name a directory of your own`,
      );
  if (named.length > 0) return named.map((directory) => path.resolve(directory));
  if (configFile === undefined) return [];
  const beside = path.join(path.dirname(path.resolve(configFile)), "filters");
  return isShippedTree(beside) ? [] : [beside];
}

/**
 * Where to look for packages. With neither --filters nor a config: in `./filters/`, or, if the current folder is itself a
 * package, in its parent, for that package alone.
 */
function devPlace(
  name: string | undefined,
  flags: { readonly filters: readonly string[]; readonly configPath?: string },
): { readonly name: string | undefined; readonly filters: string[] } {
  const named = filterDirectories(flags.filters, flags.configPath);
  if (named.length > 0 || flags.configPath !== undefined) return { name, filters: named };
  const here = process.cwd();
  const isPackage = ["filter.ts", "filter.js"].some((file) => existsSync(path.join(here, file)));
  if (isPackage && name === undefined)
    return { name: path.basename(here), filters: [path.dirname(here)] };
  return { name, filters: filterDirectories([], path.join(here, "any")) };
}

/** The directories given with --filters; without any, `./filters/` and `filters/` beside each config. */
function filtersHere(named: readonly string[], configs: readonly string[]): string[] {
  const { filters } = devPlace("", { filters: named });
  return [...new Set([...filters, ...configs.flatMap((file) => filterDirectories(named, file))])];
}

function filtersOption(): Option {
  return new Option(
    "--filters <directory>",
    "dropped-in filters; may be repeated (default: filters/ beside the config)",
  )
    .argParser(collect)
    .default([], "");
}

function trustOption(): Option {
  return new Option(
    "--trust <name>",
    "let a dropped-in filter run among the shipped ones; may be repeated",
  )
    .argParser(collect)
    .default([], "");
}

function collect(value: string, before: string[]): string[] {
  return [...before, value];
}

/** Leaves out defaults that say nothing: an empty list or text, or a flag that is not set. */
function describeOption(option: Option): string {
  return new Help().optionDescription(option).replace(/ \(default: (\[\]|false|"")\)$/, "");
}

function parseCount(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 0 || n > 65_535)
    throw new InvalidArgumentError("write a number from 0 on");
  return n;
}

function parsePercent(text: string): number {
  const n = Number(text);
  if (!(n >= 0 && n <= 100)) throw new InvalidArgumentError("write a number from 0 to 100");
  return n;
}

// Started as a program, not imported by a test.
if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  const code = await cli(process.argv.slice(2));
  // An exit at once would lose output that a pipe has not taken yet.
  process.stdout.write("", () => process.exit(code));
}
