import {
  closeSync,
  existsSync,
  openSync,
  readFileSync,
  realpathSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type Command, InvalidArgumentError, Option } from "commander";
import type { Overlay } from "../config/overlay.ts";
import { fileError } from "../file-error.ts";
import { LEVEL_NAMES, type LevelName } from "../logs/log-options.ts";
import type { RunOptions } from "../options.ts";
import { cpus } from "../process/cpus.ts";
import { FILE_FLUSH } from "../protocol.ts";

/** The flags of `tsproxy run` as commander parses them: Envoy's, and a few of our own. */
export interface RunFlags {
  readonly configPath?: string;
  readonly configYaml?: string;
  readonly concurrency: number;
  readonly mode: "serve" | "validate" | "init_only";
  readonly logLevel: LevelName;
  readonly componentLogLevel?: Readonly<Record<string, LevelName>>;
  readonly logPath?: string;
  readonly logFormat?: string;
  readonly logFormatEscaped: boolean;
  readonly serviceCluster: string;
  readonly serviceNode: string;
  readonly serviceZone?: string;
  readonly statsTag: readonly Overlay[];
  readonly localAddressIpVersion: "v4" | "v6";
  readonly adminAddressPath: string;
  readonly fileFlushIntervalMsec: number;
  readonly fileFlushMinSizeKb: number;
  readonly allowUnknownStaticFields: boolean;
  readonly allowUnknownFields: boolean;
  readonly drainTimeS: number;
  readonly drainStrategy: "gradual" | "immediate";
  readonly parentShutdownTimeS: number;
  readonly baseId: number;
  readonly useDynamicBaseId: boolean;
  readonly baseIdPath?: string;
  readonly restartEpoch: number;
  readonly disableHotRestart: boolean;
  readonly socketPath?: string;
  readonly socketMode: number;
  readonly hotRestartVersion: boolean;
  readonly takeover: boolean;
  readonly filters: string[];
  readonly trust: string[];
  readonly strict: boolean;
}

/**
 * Envoy's flags that have no effect here, and why. They are accepted with a warning, so that Envoy's command lines work
 * unchanged.
 */
const WITHOUT_MEANING: Readonly<Record<string, string>> = {
  "--cpuset-threads": "workers are counted by the CPUs that this process may use in any case",
  "--disable-extensions <names>": "every extension stays available; take it out of the config",
  "--enable-core-dump": "the system's limits decide on core dumps (ulimit -c)",
  "--enable-fine-grain-logging": "use --component-log-level with the names of packages",
  "--enable-mutex-tracing": "workers share no mutex",
  "--ignore-unknown-dynamic-fields": "there is no dynamic configuration",
  "--log-stacktrace-single-entry": "a stack is always one line of the log",
  "--reject-unknown-dynamic-fields": "there is no dynamic configuration",
  "--skip-deprecated-logs": "deprecated fields are not told of",
  "--skip-hot-restart-on-no-parent":
    "--takeover starts as usual where nobody is there to be taken over",
  "--skip-hot-restart-parent-stats": "stats start at zero in every process",
};

export function addRunFlags(command: Command): Command {
  command
    .option(
      "-c, --config-path <file>",
      "Envoy bootstrap: YAML or JSON, v3 or v2; a pipe is read once",
    )
    .option("--config-yaml <yaml>", "a bootstrap that is merged over that file")
    .option("--concurrency <n>", "worker threads", parseCount, cpus())
    .addOption(
      new Option("--mode <mode>", "serve, or only check the config")
        .choices(["serve", "validate", "init_only"])
        .default("serve"),
    )
    .addOption(
      new Option("-l, --log-level <level>", "how much is told")
        .choices(LEVEL_NAMES)
        .default("info"),
    )
    .option("--component-log-level <levels>", "http/router:debug,admin:error", parseLevels)
    .option(
      "--log-path <file>",
      "append the log to that file instead of stderr; SIGUSR1 opens it anew",
    )
    .option("--log-format <pattern>", "of the log's lines, in the words of spdlog")
    .option("--log-format-escaped", "write line ends within messages as \\n", false)
    .option("--service-cluster <name>", "the cluster this node belongs to", "")
    .option("--service-node <id>", "the id of this node", "")
    .option("--service-zone <name>", "the zone this node is in")
    .option("--stats-tag <tag:value>", "a tag of every stat; may be repeated", parseStatsTag, [])
    .addOption(
      new Option("--local-address-ip-version <version>", "of this node's own address")
        .choices(["v4", "v6"])
        .default("v4"),
    )
    .option(
      "--admin-address-path <file>",
      "write the address that admin listens on to that file",
      "",
    )
    .option(
      "--file-flush-interval-msec <ms>",
      "access logs are written this long after their first line",
      parseMs,
      FILE_FLUSH.ms,
    )
    .option(
      "--file-flush-min-size-kb <kb>",
      "or when so much has gathered",
      parseKb,
      FILE_FLUSH.bytes / 1024,
    )
    .option("--allow-unknown-static-fields", "warn of fields that Envoy does not know", false)
    .option("--allow-unknown-fields", "the same, by its old name", false)
    .option("--strict", "refuse fields that Envoy knows and tsproxy does not implement", false)
    .option(
      "--takeover",
      "bind beside the proxy that serves this config, and end it without a gap",
      false,
    )
    .option(
      "--drain-time-s <s>",
      "how long connections of a removed listener may take",
      parseSeconds,
      600,
    )
    .addOption(
      new Option(
        "--drain-strategy <strategy>",
        "ask the clients of a removed listener to leave one by one over that time, or at once",
      )
        .choices(["gradual", "immediate"])
        .default("gradual"),
    )
    .option(
      "--parent-shutdown-time-s <s>",
      "how long those of a replaced proxy may",
      parseSeconds,
      900,
    )
    .option("--base-id <n>", "tells proxies apart that share a config file", parseId, 0)
    .option("--use-dynamic-base-id", "takes the process id for that", false)
    .option("--base-id-path <file>", "write the base id to that file")
    .addOption(
      new Option("--restart-epoch <n>", "above 0: --takeover").argParser(parseId).default(0, "0"),
    )
    .option("--disable-hot-restart", "nobody may take this one over", false)
    .option("--socket-path <file>", "the control socket by which one proxy finds the other")
    .addOption(
      new Option("--socket-mode <mode>", "permissions of that file")
        .argParser(parseMode)
        .default(0o600, "600"),
    )
    .option("--hot-restart-version", "print that hot restart is --takeover here, and end", false);
  for (const [flag, why] of Object.entries(WITHOUT_MEANING))
    command.addOption(new Option(flag, why).helpGroup("Flags of Envoy's that have no effect:"));
  refuseSecondValues(command);
  return command;
}

/** As Envoy: of two values one would be ignored in silence. `--stats-tag` alone gathers them. */
function refuseSecondValues(command: Command): void {
  for (const option of command.options.filter(({ required }) => required)) {
    let isGiven = false;
    command.on(`option:${option.name()}`, () => {
      if (isGiven && option.long !== "--stats-tag")
        command.error(`error: option '${option.flags}' is given twice`);
      isGiven = true;
    });
  }
}

/** `argv` without what follows `--` or `--ignore_rest`, which Envoy ignores. */
export function withoutIgnored(argv: readonly string[]): readonly string[] {
  const rest = argv.findIndex((word) => word === "--" || word === "--ignore_rest");
  return rest < 0 ? argv : argv.slice(0, rest);
}

/** Warnings about the given flags that have no effect. */
export function warningsOf(command: Command): string[] {
  return Object.entries(WITHOUT_MEANING).flatMap(([flag, why]) => {
    const [name] = flag.split(" ");
    const option = command.options.find(({ long }) => long === name)!;
    return command.getOptionValue(option.attributeName()) === undefined
      ? []
      : [`${name} has no effect: ${why}`];
  });
}

/** Turns flags into options. Throws an error for the user if they are wrong. */
export function runOptions(flags: RunFlags, filters: readonly string[]): RunOptions {
  const { configPath = "", logPath, logFormat } = flags;
  if (configPath === "" && !flags.configYaml)
    throw new Error(
      "no config: name a file with -c, or write it after --config-yaml; tsproxy init makes a file to start from",
    );
  if (flags.useDynamicBaseId && flags.restartEpoch > 0)
    throw new Error(
      "--use-dynamic-base-id: nobody has this base id yet who --restart-epoch could take over; write --base-id",
    );
  return {
    configFile: configPath,
    ...configText(configPath),
    overlays: overlaysOf(flags),
    concurrency: flags.concurrency,
    log: {
      level: flags.logLevel,
      components: flags.componentLogLevel ?? {},
      ...(logPath && { path: path.resolve(logPath) }),
      ...(logFormat !== undefined && { format: logFormat }),
      escaped: flags.logFormatEscaped,
    },
    serviceCluster: flags.serviceCluster,
    serviceNode: flags.serviceNode,
    filters,
    trusted: flags.trust,
    strict: flags.strict,
    allowUnknown: flags.allowUnknownStaticFields || flags.allowUnknownFields,
    drainTimeMs: flags.drainTimeS * 1000,
    drainImmediately: flags.drainStrategy === "immediate",
    parentShutdownMs: flags.parentShutdownTimeS * 1000,
    adminAddressPath: flags.adminAddressPath,
    fileFlush: { ms: flags.fileFlushIntervalMsec, bytes: flags.fileFlushMinSizeKb * 1024 },
    addressFamily: flags.localAddressIpVersion,
    takeover: flags.takeover || flags.restartEpoch > 0,
    controlSocket: flags.disableHotRestart ? "" : controlSocket(flags, configPath),
    controlSocketMode: flags.socketMode,
  };
}

/** Writes `--base-id-path`, and makes sure of `--log-path`: for a proxy that serves, since a check leaves no trace. */
export function openFiles(flags: RunFlags): void {
  const { baseIdPath, logPath } = flags;
  if (baseIdPath)
    said(`cannot write ${baseIdPath}`, () => writeFileSync(baseIdPath, `${baseIdOf(flags)}`));
  if (logPath) said(`cannot write the log to ${logPath}`, () => closeSync(openSync(logPath, "a")));
}

function baseIdOf({ useDynamicBaseId, baseId }: RunFlags): number {
  return useDynamicBaseId ? process.pid : baseId;
}

/** Reads a config that is a pipe or a terminal, which works only once. A file is read by the proxy, at every change. */
function configText(file: string): { configText?: string } {
  if (file === "") return { configText: "" };
  return said(`cannot read ${file}`, () => {
    const text = readFileSync(file, "utf8");
    return statSync(file).isFile() ? {} : { configText: text };
  });
}

/** Calls `run`; if the system refuses, throws an error whose message says `what` failed and why, in plain words. */
export function said<T>(what: string, run: () => T): T {
  try {
    return run();
  } catch (error) {
    throw new Error(`${what}: ${fileError(error)}`);
  }
}

/** The flags that change the bootstrap, as overlays over it. An empty text is as good as none: a script's `"$MORE"`. */
function overlaysOf({ configYaml, serviceZone, statsTag }: RunFlags): Overlay[] {
  const overlays: Overlay[] = [];
  if (configYaml) overlays.push({ name: "--config-yaml", text: configYaml });
  if (serviceZone) {
    const text = JSON.stringify({ node: { locality: { zone: serviceZone } } });
    overlays.push({ name: "--service-zone", text });
  }
  return [...overlays, ...statsTag];
}

/** The path of the control socket: in a directory of this user's own, named by the base id, or by a hash of the config's path. */
function controlSocket(flags: RunFlags, file: string): string {
  if (flags.socketPath) return path.resolve(flags.socketPath);
  const baseId = baseIdOf(flags);
  const base = process.env.XDG_RUNTIME_DIR ?? tmpdir();
  const config = file !== "" && existsSync(file) ? realpathSync.native(path.dirname(file)) : "";
  const key = `${config}/${path.basename(file)}`;
  const name = baseId > 0 ? `${baseId}` : digest(key);
  return path.join(base, `tsproxy-${process.getuid?.()}`, `${name}.sock`);
}

/** FNV-1a in 64 bits: node:crypto would cost the supervisor 5 MiB for this alone. */
function digest(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of Buffer.from(text))
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, "0");
}

function parseCount(text: string): number {
  return Math.max(1, parseWhole(text, 256, "a number from 1 to 256"));
}

// 0 is Envoy's word for "do not wait": as soon as a timer can, or with each line.
function parseMs(text: string): number {
  return Math.max(1, parseWhole(text, 0x7fff_ffff, "milliseconds, 0 to 2147483647"));
}

function parseKb(text: string): number {
  return parseWhole(text, 65_536, "KiB, 0 to 65536");
}

/** Digits alone: `Number` would also take 0x10, 1e3 and nothing at all. */
function parseWhole(text: string, max: number, what: string): number {
  const n = Number(text);
  if (!/^\d+$/.test(text) || n > max) throw new InvalidArgumentError(`write ${what}`);
  return n;
}

function parseMode(text: string): number {
  if (!/^[0-7]{1,4}$/.test(text)) throw new InvalidArgumentError("write permissions as for chmod");
  return Number.parseInt(text, 8);
}

function parseSeconds(text: string): number {
  return parseWhole(text, 0xffff_ffff, "a whole number of seconds");
}

function parseId(text: string): number {
  return parseWhole(text, 0xffff_ffff, "a whole number");
}

function parseLevels(text: string): Record<string, LevelName> {
  const levels: Record<string, LevelName> = {};
  for (const entry of text === "" ? [] : text.split(",")) {
    const [component, level] = entry.split(":") as [string, LevelName | undefined];
    if (component === "" || level === undefined || !LEVEL_NAMES.includes(level))
      throw new InvalidArgumentError(
        `"${entry}" is not component:level; levels are ${LEVEL_NAMES.join(", ")}`,
      );
    levels[component] = level;
  }
  return levels;
}

function parseStatsTag(text: string, before: readonly Overlay[]): Overlay[] {
  const [, tag, value] = /^([A-Za-z0-9]+):([^.]+)$/.exec(text) ?? [];
  if (tag === undefined)
    throw new InvalidArgumentError("write tag:value; a tag has letters and digits, a value no dot");
  const stats_tags = [{ tag_name: tag, fixed_value: value }];
  return [
    ...before,
    { name: "--stats-tag", text: JSON.stringify({ stats_config: { stats_tags } }) },
  ];
}
