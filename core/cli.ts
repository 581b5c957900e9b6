import { existsSync, realpathSync, statSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { Command, InvalidArgumentError, Option } from "commander";
import type { NewFilterKind } from "./filter-new.ts";
import { createLog, LEVEL_NAMES, type LevelName } from "./log.ts";
import type { RunOptions, Runtime } from "./options.ts";
import { isShippedTree } from "./packages.ts";
import { VERSION } from "./version.ts";

interface RunFlags {
  readonly configPath: string;
  readonly concurrency: number;
  readonly logLevel: LevelName;
  readonly serviceCluster: string;
  readonly serviceNode: string;
  readonly filters: string[];
  readonly trust: string[];
  readonly mode: "serve" | "validate";
  readonly strict: boolean;
  readonly fileFlushIntervalMsec: number;
}

/** Answers the exit code. Each command loads what it needs: the supervisor stays small beside the proxy. */
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
    .showHelpAfterError("(tsproxy --help tells more)")
    .exitOverride();

  program
    .command("run", { isDefault: true })
    .description("serve traffic; edits of the config and of filters are taken up as they are saved")
    .requiredOption("-c, --config-path <file>", "Envoy bootstrap, YAML or JSON, v3 or v2")
    .option("--concurrency <n>", "worker threads", parseCount, availableParallelism())
    .addOption(
      new Option("-l, --log-level <level>", "how much is told")
        .choices(LEVEL_NAMES)
        .default("info"),
    )
    .option(
      "--service-cluster <name>",
      "the cluster this node belongs to, for control planes and access logs",
      "",
    )
    .option("--service-node <id>", "the id of this node", "")
    .addOption(filtersOption())
    .addOption(trustOption())
    .addOption(
      new Option("--mode <mode>", "serve, or only check the config")
        .choices(["serve", "validate"])
        .default("serve"),
    )
    .option(
      "--file-flush-interval-msec <ms>",
      "access logs are written this long after their first line, or at 64 KiB",
      parseMs,
      10_000,
    )
    .option("--strict", "refuse fields that Envoy knows and tsproxy does not implement", false)
    .action(async (flags: RunFlags) => {
      code = await run(flags, runtime);
    });

  program
    .command("validate")
    .description("check config files; the exit code is 1 if any is refused")
    .argument("<file...>", "Envoy bootstraps")
    .option("--json", "print a list of { file, ok, errors, warnings }", false)
    .option("--strict", "refuse fields that Envoy knows and tsproxy does not implement", false)
    .addOption(filtersOption())
    .addOption(trustOption())
    .action(
      async (
        files: string[],
        flags: { json: boolean; strict: boolean; filters: string[]; trust: string[] },
      ) => {
        const { validate } = await import("./validate.ts");
        code = await validate({
          files,
          ...flags,
          filters: (file) => filterDirectories(flags.filters, file),
        });
      },
    );

  const filter = program.command("filter").description("make filters, and see what is there");
  filter
    .command("new")
    .description("write a filter package that works, with its test")
    .argument("<name>", "what configs will call it")
    .addOption(
      new Option("--kind <kind>", "where it stands").choices(["http", "network"]).default("http"),
    )
    .option("--dir <directory>", "where packages lie", "filters")
    .action(async (name: string, flags: { kind: NewFilterKind; dir: string }) => {
      const { filterNew } = await import("./filter-new.ts");
      code = await filterNew({ name, ...flags });
    });
  filter
    .command("test")
    .description("run the tests of filters; vitest and the SDK's testing kit come with the proxy")
    .argument("[name...]", "only tests whose path has one of these in it")
    .option("--dir <directory>", "where packages lie", "filters")
    .option("--watch", "run them again when something is saved", false)
    .action(async (names: string[], flags: { dir: string; watch: boolean }) => {
      const { filterTest } = await import("./filter-test.ts");
      code = await filterTest({ names, ...flags });
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
        const { listFilters } = await import("./filter-list.ts");
        code = await listFilters({
          ...flags,
          filters: filterDirectories(flags.filters, flags.configPath),
        });
      },
    );

  try {
    await program.parseAsync([...argv], { from: "user" });
  } catch (error) {
    // Commander has printed what it had to say.
    if (error instanceof Error && "exitCode" in error) return Number(error.exitCode);
    process.stderr.write(`tsproxy: ${error instanceof Error ? error.message : error}\n`);
    return 1;
  }
  return code;
}

async function run(flags: RunFlags, runtime: Runtime): Promise<number> {
  const file = flags.configPath;
  if (!existsSync(file) || statSync(file).isDirectory()) {
    process.stderr.write(
      `cannot read ${file}: ${existsSync(file) ? "it is a directory" : "no such file"}\n`,
    );
    return 1;
  }
  const filters = filterDirectories(flags.filters, file);
  const trusted = flags.trust;
  if (flags.mode === "validate") {
    const { validate } = await import("./validate.ts");
    return validate({
      files: [file],
      json: false,
      strict: flags.strict,
      trust: trusted,
      filters: () => filters,
    });
  }
  const options: RunOptions = { ...flags, configFile: file, filters, trusted };
  const { superviseProxy } = await import("./supervisor.ts");
  const log = createLog(flags.logLevel);
  return superviseProxy(options, runtime, (message) => log.error(message));
}

/** The directories that were named; else `filters/` beside the config, if there is one. Never the tree of the shipped ones. */
function filterDirectories(named: readonly string[], configFile: string | undefined): string[] {
  for (const directory of named)
    if (isShippedTree(directory))
      throw new Error(
        `--filters ${directory}: these are the shipped filters, which are always there; name a directory of your own`,
      );
  if (named.length > 0) return named.map((directory) => path.resolve(directory));
  if (configFile === undefined) return [];
  const beside = path.join(path.dirname(path.resolve(configFile)), "filters");
  return existsSync(beside) && statSync(beside).isDirectory() && !isShippedTree(beside)
    ? [beside]
    : [];
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

function parseMs(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1 || n > 3_600_000)
    throw new InvalidArgumentError("write milliseconds, 1 to 3600000");
  return n;
}

function parseCount(text: string): number {
  const n = Number(text);
  if (!Number.isInteger(n) || n < 1 || n > 256)
    throw new InvalidArgumentError("write a number from 1 to 256");
  return n;
}

// Started as a program, not imported by a test.
if (
  process.argv[1] !== undefined &&
  realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)
) {
  const code = await cli(process.argv.slice(2));
  process.exit(code);
}
