import path from "node:path";
import type { ListenerConfig, PackageInfo, RuntimeConfig } from "../protocol.ts";
import { bootstrapSchema, checkBootstrap, runtimeConfig } from "./bootstrap.ts";
import { Builder } from "./build.ts";
import { descriptor } from "./descriptor.ts";
import { type Diagnostic, type Place, Report, type ReportOptions } from "./diagnostic.ts";
import { clone, fromValue, MapNode, type Node } from "./document.ts";
import { dumpedFields } from "./dump.ts";
import { Listener, listenerConfigs } from "./listeners.ts";
import type { Maker } from "./maker.ts";
import type { NamedFiles } from "./named-files.ts";
import { Normaliser } from "./normalise.ts";
import { merge, type Overlay } from "./overlay.ts";
import { type Format, parseDocument } from "./parse.ts";
import { type BrokenPackage, Registry } from "./registry.ts";
import { type Era, eraOf, Rewriter } from "./rewrite.ts";
import type { Schema } from "./schema.ts";
import { placeSecrets } from "./secrets.ts";
import { soundPart } from "./sound.ts";
import { Source } from "./source.ts";

const BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap";

export { type Diagnostic, formatDiagnostic } from "./diagnostic.ts";
export type { Source } from "./source.ts";

export interface ConfigText {
  /** Names the file in messages; its extension gives the format where `format` is absent. */
  readonly file?: string;
  readonly text: string;
  readonly format?: Format;
  /** YAML texts, each merged over the file and the ones before it. */
  readonly overlays?: readonly Overlay[];
}

export interface LoadOptions extends ReportOptions {
  /** Overrides the era that the text itself shows. */
  readonly era?: Era;
  /** True: fields that Envoy does not have either are warnings, not errors (`--allow-unknown-static-fields`). */
  readonly allowUnknown?: boolean;
  /** Packages that there would be, but for their mistakes. */
  readonly broken?: readonly BrokenPackage[];
}

export type Loaded =
  | {
      readonly ok: true;
      readonly config: RuntimeConfig;
      /** Canonical v3 JSON, for config_dump. Each field is made anew when it is read. */
      readonly bootstrap: object;
      readonly warnings: readonly Diagnostic[];
      /** Finds the line that a package's refusal is about. */
      readonly source: Pick<Source, "diagnostic">;
      readonly files: NamedFiles;
    }
  | {
      readonly ok: false;
      readonly files: NamedFiles;
      readonly errors: readonly Diagnostic[];
      readonly warnings: readonly Diagnostic[];
      /** The part without errors (`soundPart`): what packages refuse of it can be told as well. */
      readonly sound?: {
        readonly config: RuntimeConfig;
        readonly source: Pick<Source, "diagnostic">;
      };
    };

/**
 * Turns an Envoy configuration file into what workers run. All errors of the file are reported at once. Errors that only the
 * `setup` of a package can find are not among them.
 */
export function loadConfig(
  input: ConfigText,
  packages: readonly PackageInfo[],
  options: LoadOptions,
): Loaded {
  const { report, read } = readConfig(input, packages, options);
  const { errors, warnings, files } = report;
  if (read === undefined || report.failed) {
    const failed = { ok: false, files, errors, warnings } as const;
    const config = read && soundPart(read.config, errors, read.origin, packages);
    if (read === undefined || config === undefined) return failed;
    const source = new Source(config, read.root, read.origin, report);
    return { ...failed, sound: { config, source } };
  }
  const tree = new Remembered(read, () => readConfig(input, packages, options).read!);
  return {
    ok: true,
    config: read.config,
    warnings,
    get bootstrap() {
      return dumpedFields(descriptor(), tree.value.shown);
    },
    source: { diagnostic: (refusal) => tree.value.source.diagnostic(refusal) },
    files,
  };
}

/**
 * A value that may be collected as garbage and is made again when needed: the tree of a large file takes more memory than the
 * config that serves, and is needed only for refusals and dumps.
 */
class Remembered<T extends object> {
  #value: WeakRef<T>;
  readonly #again: () => T;

  constructor(value: T, again: () => T) {
    this.#value = new WeakRef(value);
    this.#again = again;
  }

  get value(): T {
    let value = this.#value.deref();
    if (value === undefined) this.#value = new WeakRef((value = this.#again()));
    return value;
  }
}

interface Read {
  /** The tree that config_dump shows. */
  readonly shown: MapNode;
  readonly config: RuntimeConfig;
  readonly source: Source;
  /** The tree that the config was made of, and the nodes of the parts of the config. */
  readonly root: MapNode;
  readonly origin: ReadonlyMap<object, Node>;
}

function readConfig(
  input: ConfigText,
  packages: readonly PackageInfo[],
  options: LoadOptions,
): { readonly report: Report; readonly read: Read | undefined } {
  const file = input.file ?? "(config)";
  const report = new Report(file, input.text, options);
  const root = read(input, file, report);
  if (root === undefined) return { report, read: undefined };

  const registry = new Registry(packages, options.broken);
  const era = options.era ?? eraOf(root);
  const { builder, normaliser, maker } = tools(registry, report, era, false, options);
  normaliser.message(BOOTSTRAP, root);
  checkBootstrap(root, report);
  // config_dump shows secrets and cluster defaults where the file has them, so it needs a copy from before they are moved.
  const hasSecrets = root.map("static_resources")?.has("secrets") === true;
  const isSpread =
    hasClusterDefaults(root) || root.map("cluster_manager")?.has("outlier_detection") === true;
  const shown = hasSecrets || isSpread ? (clone(root) as MapNode) : root;
  placeSecrets(root, report);
  placeClusterDefaults(root);
  placeOutlierLog(root);
  const value = builder.part(bootstrapSchema(registry.packages), root);
  if (report.failed) dropHoles(value);
  const config = runtimeConfig(value, root, maker);
  normaliser.reportLoose();
  const { origin } = builder;
  const source = new Source(config, root, origin, report);
  return { report, read: { shown, config, source, root, origin } };
}

/**
 * Defaults for clusters in the bootstrap: the map that they stand in, and its fields. A cluster that has one of the fields gets
 * none.
 */
const CLUSTER_DEFAULTS: readonly (readonly [
  at: (root: MapNode) => MapNode | undefined,
  fields: readonly string[],
])[] = [
  [(root) => root.map("cluster_manager"), ["upstream_bind_config"]],
  [(root) => root, ["typed_dns_resolver_config", "dns_resolution_config"]],
];

function hasClusterDefaults(root: MapNode): boolean {
  return CLUSTER_DEFAULTS.some(([at, fields]) => fields.some((field) => at(root)?.has(field)));
}

function placeClusterDefaults(root: MapNode): void {
  const clusters = root.map("static_resources")?.list("clusters") ?? [];
  for (const [at, fields] of CLUSTER_DEFAULTS) {
    const given = fields.map((field) => [field, at(root)?.delete(field)] as const);
    for (const cluster of clusters) {
      if (cluster.kind !== "map" || fields.some((field) => cluster.has(field))) continue;
      for (const [field, value] of given) if (value !== undefined) cluster.set(field, clone(value));
    }
  }
}

/** Copies the path of `cluster_manager.outlier_detection`'s event log to every cluster with outlier detection. */
function placeOutlierLog(root: MapNode): void {
  const path = root.map("cluster_manager")?.map("outlier_detection")?.delete("event_log_path");
  if (path === undefined) return;
  for (const cluster of root.map("static_resources")?.list("clusters") ?? [])
    if (cluster.kind === "map")
      cluster.map("outlier_detection")?.set("event_log_path", clone(path));
}

/** Parses the file and merges the overlays over it. Undefined: an error has been reported. */
function read(input: ConfigText, file: string, report: Report): MapNode | undefined {
  const { overlays = [] } = input;
  const isOverlayAlone = input.text.trim() === "" && overlays.length > 0;
  const format = input.format ?? formatOf(file, report);
  const first: Place = { offset: 0, path: "" };
  let root: Node | undefined = isOverlayAlone
    ? new MapNode(first)
    : format && parseDocument(input.text, format, report);
  let end = input.text.length;
  for (const { name, text } of overlays) {
    const from = report.append(name, text, end);
    end = from + text.length;
    // Blank lines stand for the text before it, so that offsets count from the beginning of the whole text.
    const over = parseDocument(`${"\n".repeat(from)}${text}`, "yaml", report);
    root = root && over && merge(root, over, BOOTSTRAP);
  }
  return root as MapNode | undefined;
}

/**
 * Loads a listener that a service brings along: Envoy's Listener as JSON, with extensions by name and `config`, or already as
 * ExtensionRefs. `origin` names it in messages.
 */
export function loadListener(
  listener: unknown,
  packages: readonly PackageInfo[],
  origin: string,
):
  | { readonly ok: true; readonly listener: ListenerConfig }
  | { readonly ok: false; readonly errors: readonly Diagnostic[] } {
  const report = new Report(origin, "", { strict: false });
  const { builder, normaliser, maker } = tools(new Registry(packages), report, "v3", true);
  // It is not normalised as a protobuf message: what a service writes is checked by core's own schema alone.
  const root = fromValue(listener, { offset: 0, path: "" });
  const value = builder.part(Listener as unknown as Schema, root);
  const sound = root.kind === "map" && !report.failed;
  const [made] = sound ? listenerConfigs([value as never], maker) : [];
  normaliser.reportLoose();
  if (report.failed || made === undefined) return { ok: false, errors: report.errors };
  return { ok: true, listener: made };
}

/** Removes refused entries (undefined) from all lists, so that the others can be checked as well. */
function dropHoles(value: unknown): void {
  if (Array.isArray(value)) {
    const kept = value.filter((item) => item !== undefined);
    if (kept.length < value.length) value.splice(0, value.length, ...kept);
  }
  if (typeof value === "object" && value !== null)
    for (const item of Object.values(value)) dropHoles(item);
}

function tools(
  registry: Registry,
  report: Report,
  era: Era,
  resolved: boolean,
  { allowUnknown = false }: Pick<LoadOptions, "allowUnknown"> = {},
) {
  const messages = descriptor();
  const rewriter = new Rewriter(era, messages, registry, report);
  const normaliser = new Normaliser(messages, rewriter, report, { resolved, allowUnknown });
  const builder = new Builder({ registry, normaliser, report, era, resolved });
  const maker: Maker = {
    report,
    registry,
    origin: builder.origin,
    part: (schema: Schema, node: Node) => builder.part(schema, node),
    source: (place: Place) => {
      const { file, line, column } = report.diagnostic(place, "");
      return `${file}:${line}:${column}`;
    },
  };
  return { builder, normaliser, maker };
}

/** The format of a file, by its extension. Undefined: an error has been reported. */
export function formatOf(file: string, report: Report): Format | undefined {
  const extension = path.extname(file).toLowerCase();
  if (extension === ".json") return "json";
  if (extension !== ".pb" && extension !== ".pb_text") return "yaml";
  report.error({ offset: 0, path: "" }, `${extension} files cannot be read`, "write YAML or JSON");
  return undefined;
}
