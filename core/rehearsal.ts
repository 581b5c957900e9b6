import { hash } from "node:crypto";
import type { ExtensionRef } from "@tsproxy/sdk";
import { locate, type SourcePositions } from "./bundle.ts";
import { type Loaded, loadConfig, loadListener } from "./config/load.ts";
import type { Overlay } from "./config/overlay.ts";
import type { Change, Stage } from "./fleet.ts";
import { type Problem, problem } from "./problem.ts";
import type { ListenerConfig, PackageInfo, Refusal, RuntimeConfig } from "./protocol.ts";
import { WrittenConfig } from "./written-config.ts";

/** Sets a change up where nothing takes effect yet: the canary, or, when nothing is served, all threads. */
export interface RehearsalStage extends Stage {
  /** Envoy's Listener as JSON, one for each that a service of the present preparation brings along. */
  serviceListeners(): readonly unknown[];
  /** Adds to the present preparation the listeners from the nth of that config on: all before are prepared. */
  extend(config: RuntimeConfig, nth: number): Promise<readonly Refusal[]>;
}

export interface RehearsalOptions {
  readonly file: string;
  readonly text: string;
  readonly overlays?: readonly Overlay[];
  readonly packages: readonly PackageInfo[];
  /** Their hash. */
  readonly said: string;
  readonly strict: boolean;
  readonly allowUnknown?: boolean;
  /** What the command line says of the node; "" leaves it to the config. */
  readonly node: { readonly id: string; readonly cluster: string };
  /** What is changed of a config before anybody sets it up. */
  readonly adjust?: ((config: RuntimeConfig) => void) | undefined;
  readonly canary: RehearsalStage;
  readonly change: Omit<Change, "config">;
  /** What serves. */
  readonly live: Rehearsed | undefined;
  /** Positions of the module of that name in stacks. */
  readonly find: (filename: string) => SourcePositions | undefined;
}

/** A configuration that may be put into service. The canary has it prepared: commit there, or abort. */
export interface Rehearsed {
  readonly config: RuntimeConfig;
  /** The same as what serves: threads need not be told. */
  readonly unchanged: boolean;
  readonly loaded: Loaded & { readonly ok: true };
  readonly warnings: readonly Problem[];
  /** Hashes of what was checked and of the part that came from the file, and what services added: to tell what has changed. */
  readonly asked: string;
  readonly written: string;
  readonly brought: string;
  /** What packages say against its code or their part of the config, at the user's lines; each thing once. */
  explain(refusals: readonly Refusal[]): Problem[];
}

export interface Rejected {
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
  /** Packages that said no. */
  readonly packages: ReadonlySet<string>;
}

/** From the text of a config to what threads run: checked, set up in the canary, with the listeners that services bring along. */
export async function rehearse(options: RehearsalOptions): Promise<Rehearsed | Rejected> {
  const { file, packages, canary, change, live } = options;
  const asked = hash("sha1", `${options.said}\n${options.text}`);
  const loaded = asked === live?.asked ? live.loaded : load(options);
  const warnings = loaded.warnings.map(toProblem);
  if (!loaded.ok) return { problems: loaded.errors.map(toProblem), warnings, packages: new Set() };
  // What serves keeps this function: it must not hold on to `options`, in which stands what served before.
  const explain = explainer(loaded, options.find);
  const refused = (refusals: readonly Refusal[]): Rejected => ({
    problems: explain(refusals),
    warnings,
    packages: new Set(refusals.map((refusal) => refusal.package)),
  });

  const own = withNode(loaded.config, options.node);
  const written = WrittenConfig.of(own).hash;
  const sameFile = written === live?.written;
  const first = await canary.prepare({ ...change, config: sameFile ? undefined : own });
  if (first.length > 0) return refused(first);
  const services = canary.serviceListeners();
  const brought = JSON.stringify(services);
  const same = { asked, loaded, warnings, written, brought, explain };
  if (sameFile && brought === live?.brought)
    return { ...same, config: live.config, unchanged: true };
  if (services.length === 0) return { ...same, config: own, unchanged: false };

  const listeners: ListenerConfig[] = [];
  for (const service of services) {
    const made = loadListener(asEnvoys(service), packages, file);
    if (!made.ok) return { problems: made.errors.map(toProblem), warnings, packages: new Set() };
    listeners.push({ ...made.listener, thread: "control" });
  }
  const config = { ...own, listeners: [...own.listeners, ...listeners] };
  const second = sameFile
    ? await canary.prepare({ ...change, config })
    : await canary.extend(config, own.listeners.length);
  return second.length > 0 ? refused(second) : { ...same, config, unchanged: false };
}

/** Checking a large config takes most of a reload's time; the same text against the same packages says the same again. */
function load(options: RehearsalOptions): Loaded {
  const { file, text, overlays = [], packages, strict, allowUnknown = false } = options;
  const loaded = loadConfig({ file, text, overlays }, packages, { strict, allowUnknown });
  // In place: what packages say of its parts is still found in the file.
  if (loaded.ok) options.adjust?.(loaded.config);
  return loaded;
}

export function isRejected(outcome: Rehearsed | Rejected): outcome is Rejected {
  return "problems" in outcome;
}

function explainer(
  loaded: Loaded & { ok: true },
  find: RehearsalOptions["find"],
): (refusals: readonly Refusal[]) => Problem[] {
  return (refusals) => distinct(refusals.map((refusal) => explained(refusal, loaded, find)));
}

/** A word against the config is told at the user's line in it; a failure of code at the line of the code. */
function explained(
  refusal: Refusal,
  loaded: Loaded & { ok: true },
  find: RehearsalOptions["find"],
): Problem {
  const inCode = locate(refusal.message, refusal.stack, find);
  if (inCode.file !== "") return inCode;
  if (refusal.place !== "") return toProblem(loaded.source.diagnostic(refusal));
  return problem(
    refusal.package === "" ? refusal.message : `${refusal.package}: ${refusal.message}`,
  );
}

/** A service may write the listener as core keeps it; its filters are checked all the same, so that defaults get filled in. */
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

function withNode(config: RuntimeConfig, { id, cluster }: RehearsalOptions["node"]): RuntimeConfig {
  const { node } = config;
  return { ...config, node: { ...node, id: id || node.id, cluster: cluster || node.cluster } };
}

function toProblem(found: Omit<Problem, "frame">): Problem {
  return { ...found, frame: "" };
}

/** A package that is used in ten places, or on ten threads, says the same ten times. */
function distinct(problems: readonly Problem[]): Problem[] {
  const seen = new Map(problems.map((found) => [JSON.stringify(found), found]));
  return [...seen.values()];
}
