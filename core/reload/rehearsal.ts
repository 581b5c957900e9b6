import type { ExtensionRef } from "@tsproxy/sdk";
import type { ReadsRuntime } from "../admin/runtime.ts";
import { type Loaded, loadConfig, loadListener, type Source } from "../config/load.ts";
import type { NamedFiles } from "../config/named-files.ts";
import type { Overlay } from "../config/overlay.ts";
import type { BrokenPackage } from "../config/registry.ts";
import { scriptPlace } from "../logs/script-place.ts";
import { locate, type SourcePositions } from "../packages/source-positions.ts";
import { type Problem, problem } from "../problem.ts";
import type { ListenerConfig, PackageInfo, Refusal, RuntimeConfig } from "../protocol.ts";
import type { Change, Stage } from "./stage.ts";
import { textHash } from "./text-hash.ts";
import { WrittenConfig } from "./written-config.ts";

/** Where a change is set up without taking effect: the canary, or, at the start, when nothing is served, all threads. */
export interface RehearsalStage extends Stage {
  /** The listeners that services of the prepared change bring along, each an Envoy Listener or a ListenerConfig. */
  serviceListeners(): readonly unknown[];
  /** Adds the listeners of `config` from the nth on to the change being prepared; those before are prepared already. */
  extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]>;
}

/** A config's text, and what it is checked against. */
export interface ConfigText {
  readonly file: string;
  readonly text: string;
  readonly overlays?: readonly Overlay[];
  readonly packages: readonly PackageInfo[];
  readonly broken: readonly BrokenPackage[];
  readonly strict: boolean;
  /** As in LoadOptions. */
  readonly serves?: boolean;
  readonly allowUnknown?: boolean;
  /** Contents of files that the text names, in the place of those on disk. */
  readonly given?: ReadonlyMap<string, Buffer> | undefined;
  /** Changes a loaded config before it is set up. */
  readonly adjust?: ((config: RuntimeConfig) => void) | undefined;
}

export interface RehearsalOptions extends ConfigText {
  /** `NamedFiles.now` of the files that the text named when it was last attempted. */
  readonly named: string;
  /** Hash of what the packages say of themselves. */
  readonly said: string;
  /** The node as the command line gives it; "": the config's applies. */
  readonly node: { readonly id: string; readonly cluster: string };
  readonly runtime: ReadsRuntime;
  readonly canary: RehearsalStage;
  /** Where the sound part of a config that has errors is set up, so that all its errors are told at once. Serves nothing. */
  readonly trial: Stage;
  readonly change: Omit<Change, "config">;
  /** The configuration that serves. Undefined: none yet. */
  readonly live: Rehearsed | undefined;
  /** Source positions of a module, by its name in stacks. */
  readonly find: (filename: string) => SourcePositions | undefined;
}

/** A configuration that passed all checks. It is prepared in the canary, and has to be committed or aborted there. */
export interface Rehearsed {
  readonly config: RuntimeConfig;
  /** True if it equals the one that serves, so that threads need not get it. */
  readonly unchanged: boolean;
  readonly loaded: Loaded & { readonly ok: true };
  readonly warnings: readonly Problem[];
  /**
   * To find what has changed since: hash of the text, of the files that it names and of what the packages say; hash of the config
   * without listeners of services; JSON of these listeners.
   */
  readonly asked: string;
  readonly written: string;
  readonly brought: string;
  /** Turns refusals into problems at the user's lines of code or config, each once. */
  explain(refusals: readonly Refusal[]): Problem[];
}

export interface Rejected {
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
  /** Packages that refused it. */
  readonly packages: ReadonlySet<string>;
  /** An isolate was stopped, as code did not come back. */
  readonly stopped?: boolean;
  /** The files that it names, as far as they have been read. */
  readonly files: NamedFiles;
}

/** Turns the text of a config into what threads run: checks it, sets it up in the canary, adds the listeners of services. */
export async function rehearse(options: RehearsalOptions): Promise<Rehearsed | Rejected> {
  const { file, packages, canary, change, live } = options;
  const asked = (named: string) => textHash(`${options.said}\n${named}\n${options.text}`);
  const loaded = asked(options.named) === live?.asked ? live.loaded : load(options);
  const warnings = loaded.warnings.map(toProblem);
  const { files } = loaded;
  if (!loaded.ok) {
    const problems = [...loaded.errors.map(toProblem), ...(await problemsOfSound(loaded, options))];
    return { problems, warnings, packages: new Set(), files };
  }
  // This function is kept while the config serves: it must not keep `options` alive, and in them the config that served before.
  const explain = explainer(loaded, options.find);
  const refused = (refusals: readonly Refusal[]): Rejected => ({
    problems: explain(refusals),
    warnings,
    packages: new Set(refusals.map((refusal) => refusal.package)),
    stopped: refusals.some((refusal) => refusal.stopped),
    files,
  });

  const own = completed(loaded.config, options);
  const written = WrittenConfig.of(own).hash;
  const sameFile = written === live?.written;
  const first = await canary.prepare({ ...change, config: sameFile ? undefined : own });
  if (first.length > 0) return refused(first);
  const services = canary.serviceListeners();
  const brought = JSON.stringify(services);
  const same = { asked: asked(files.asRead), loaded, warnings, written, brought, explain };
  if (sameFile && brought === live?.brought)
    return { ...same, config: live.config, unchanged: true };
  if (services.length === 0) return { ...same, config: own, unchanged: false };

  const listeners: ListenerConfig[] = [];
  for (const service of services) {
    const made = loadListener(asEnvoys(service), packages, file);
    if (!made.ok)
      return { problems: made.errors.map(toProblem), warnings, packages: new Set(), files };
    listeners.push({ ...made.listener, thread: "control" });
  }
  const config = { ...own, listeners: [...own.listeners, ...listeners] };
  const second = sameFile
    ? await canary.prepare({ ...change, config })
    : await canary.extend(config, own.listeners.length);
  return second.length > 0 ? refused(second) : { ...same, config, unchanged: false };
}

/** What packages refuse of the sound part of a config that has errors. */
async function problemsOfSound(
  { sound }: Loaded & { ok: false },
  options: RehearsalOptions,
): Promise<readonly Problem[]> {
  if (sound === undefined) return [];
  const { trial, change, find } = options;
  const config = completed(sound.config, options);
  const refusals = await trial.prepare({ ...change, config });
  await trial.abort(change.generation);
  return explainer(sound, find)(refusals);
}

/** Checks a config, which takes most of a reload's time if it is large; so nothing is checked again that has not changed. */
export function load(options: ConfigText): Loaded {
  const {
    file,
    text,
    overlays = [],
    packages,
    broken,
    strict,
    serves = false,
    allowUnknown = false,
    given,
  } = options;
  const how = { strict, serves, allowUnknown, given, broken };
  const loaded = loadConfig({ file, text, overlays }, packages, how);
  // Changed in place, so that refusals of its parts are still found at their lines in the file.
  if (loaded.ok) options.adjust?.(loaded.config);
  return loaded;
}

export function isRejected(outcome: Rehearsed | Rejected): outcome is Rejected {
  return "problems" in outcome;
}

/** A config, and where its parts stand in the file. */
interface Explained {
  readonly config: RuntimeConfig;
  readonly source: Pick<Source, "diagnostic">;
}

/** Makes `Rehearsed.explain`. */
function explainer(
  { config, source }: Explained,
  find: RehearsalOptions["find"],
): (refusals: readonly Refusal[]) => Problem[] {
  return (refusals) =>
    distinct(refusals.map((refusal) => explained(refusal, { config, source }, find)));
}

/** The problem of a refusal: at the line of the script or of the code that threw, or at the refused line of the config. */
function explained(
  refusal: Refusal,
  { config, source }: Explained,
  find: RehearsalOptions["find"],
): Problem {
  const inScript = scriptPlace(refusal.stack, config);
  if (inScript !== undefined) return { ...problem(refusal.message), ...inScript };
  const inCode = locate(refusal.message, refusal.stack, find);
  if (inCode.file !== "") return inCode;
  if (refusal.place !== "") return toProblem(source.diagnostic(refusal));
  return problem(
    refusal.package === "" ? refusal.message : `${refusal.package}: ${refusal.message}`,
  );
}

/** Turns a listener that a service gives as a ListenerConfig into Envoy's form, so that it is checked and gets its defaults. */
function asEnvoys(service: unknown): unknown {
  if (typeof service !== "object" || service === null || !("filterChains" in service))
    return service;
  const { name, statPrefix, address, direction, filterChains, ...rest } = service as ListenerConfig;
  const filters = (refs: readonly ExtensionRef[]) =>
    refs.map((ref) => ({ name: ref.package, config: ref.config }));
  return {
    name,
    stat_prefix: statPrefix,
    address:
      address.path === undefined
        ? { socket_address: { address: address.ip, port_value: address.port } }
        : { pipe: { path: address.path } },
    traffic_direction: direction,
    filter_chains: filterChains.map((chain) => ({
      name: chain.name,
      filters: filters(chain.filters),
    })),
    per_connection_buffer_limit_bytes: rest.perConnectionBufferLimitBytes,
    tcp_backlog_size: rest.backlog,
  };
}

/** The config with this node's names, and with what its runtime layers say now. */
function completed(
  config: RuntimeConfig,
  { node: given, runtime }: Pick<RehearsalOptions, "node" | "runtime">,
): RuntimeConfig {
  const id = given.id || config.node.id;
  const cluster = given.cluster || config.node.cluster;
  const loadedRuntime = runtime(config.runtime ?? [], cluster);
  return { ...config, node: { ...config.node, id, cluster }, loadedRuntime };
}

function toProblem(found: Omit<Problem, "frame">): Problem {
  return { ...found, frame: "" };
}

/** Removes duplicates: a package that is used in ten places, or on ten threads, says the same ten times. */
function distinct(problems: readonly Problem[]): Problem[] {
  const seen = new Map(problems.map((found) => [JSON.stringify(found), found]));
  return [...seen.values()];
}
