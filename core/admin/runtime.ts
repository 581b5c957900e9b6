import fs from "node:fs";
import path from "node:path";
import type { RuntimeValue } from "@tsproxy/sdk";
import yaml from "yaml";
import type { RuntimeLayerConfig, RuntimeValues } from "../protocol.ts";
import { unwatchedMessage, Watch } from "../reload/watch.ts";

/** A value: its text in the layer, and what that stands for. */
interface Entry {
  readonly text: string;
  readonly value: RuntimeValue;
}
type Values = ReadonlyMap<string, Entry>;

/** A layer that is there. `trouble`: why it could not be read, so that it has no values. */
interface ReadLayer {
  readonly config: RuntimeLayerConfig;
  readonly values: Values;
  readonly trouble?: string;
}

/** Answers what these layers say now. `cluster`: the one that the node belongs to. */
export type ReadsRuntime = (
  layers: readonly RuntimeLayerConfig[],
  cluster: string,
) => RuntimeValues;

const MAX_DEPTH = 16; // Envoy's; a directory that links to itself ends here
const MAX_FILE_BYTES = 1024 * 1024;
/** Swapping a symbolic link causes several events: read after this time. */
const SETTLE_MS = 20;

export interface RuntimeParts {
  /** The cluster that this node belongs to, which the first config may tell. */
  readonly serviceCluster: () => string;
  readonly onChange: (values: RuntimeValues) => void;
  readonly onError: (message: string) => void;
}

/** What `/runtime` shows. A value "" in a layer is one that the layer does not have. */
export interface RuntimeDump {
  readonly layers: readonly string[];
  readonly entries: Readonly<
    Record<string, { readonly layer_values: readonly string[]; readonly final_value: string }>
  >;
}

/** Envoy's runtime: values from the config, from directories and from operators, the last layer winning. */
export class RuntimeLayers {
  readonly #parts: RuntimeParts;
  #config: readonly RuntimeLayerConfig[] = [];
  #layers: readonly ReadLayer[] = [];
  readonly #overrides = new Map<string, Entry>();
  #watches: Watch[] = [];
  #settling: NodeJS.Timeout | undefined;
  /** Envoy's `runtime.` stats. */
  readonly counts = { loadSuccess: 0, loadError: 0, overrideExists: 0, overrideNotExists: 0 };

  constructor(parts: RuntimeParts) {
    this.#parts = parts;
  }

  /** Takes the layers of a config that was put into service; what operators have overridden stays. */
  configure(layers: readonly RuntimeLayerConfig[]): void {
    this.#config = layers;
    // Envoy loads the layers of its first config again when it has started, and its stats count both loads.
    this.#load(this.counts.loadSuccess + this.counts.loadError === 0 ? 2 : 1);
    for (const watch of this.#watches.splice(0)) watch.close();
    for (const { disk_layer: disk } of layers) if (disk !== undefined) this.#watch(disk);
  }

  /** Envoy's `/runtime_modify`: overrides values; "" removes an override. False: there is no admin layer. */
  modify(changes: Readonly<Record<string, string>>): boolean {
    if (!this.#config.some((layer) => layer.admin_layer !== undefined)) return false;
    for (const [key, text] of Object.entries(changes)) {
      if (text === "") this.#overrides.delete(key);
      else this.#overrides.set(key, { text, value: readRuntimeText(text) });
    }
    this.#load();
    return true;
  }

  dump(): RuntimeDump {
    const entries: Record<string, { layer_values: string[]; final_value: string }> = {};
    for (const key of this.#keys) {
      const values = this.#layers.map((layer) => layer.values.get(key)?.text ?? "");
      const final = values.findLast((text) => text !== "") ?? "";
      entries[key] = { layer_values: values, final_value: final };
    }
    return { layers: this.#layers.map(({ config }) => config.name), entries };
  }

  get keys(): number {
    return this.#keys.size;
  }
  get #keys(): ReadonlySet<string> {
    return new Set(this.#layers.flatMap(({ values }) => [...values.keys()]));
  }
  get layers(): number {
    return this.#layers.length;
  }
  get overrides(): number {
    return this.#overrides.size;
  }

  close(): void {
    clearTimeout(this.#settling);
    for (const watch of this.#watches.splice(0)) watch.close();
  }

  /** What these layers, of a config that may not serve yet, say now. */
  valuesOf(layers: readonly RuntimeLayerConfig[], cluster: string): RuntimeValues {
    return valuesOf(readLayers(layers, cluster, this.#overrides));
  }

  /** `times`: how many loads the stats count, where Envoy loads more than once. */
  #load(times = 1): void {
    const read = readLayers(this.#config, this.#parts.serviceCluster(), this.#overrides);
    this.#layers = read;
    const troubles = read.flatMap(({ trouble }) => trouble ?? []);
    for (const trouble of troubles) this.#parts.onError(trouble);
    const { counts } = this;
    if (troubles.length > 0) counts.loadError += times;
    else counts.loadSuccess += times;
    const disks = read.filter(({ config }) => config.disk_layer !== undefined).length;
    if (disks > 1) counts.overrideExists += times;
    else counts.overrideNotExists += times;
    this.#parts.onChange(valuesOf(read));
  }

  /** Watches for Envoy's way to change values: a new directory is made, and a symbolic link to it is moved over the old link. */
  #watch({ symlink_root }: NonNullable<RuntimeLayerConfig["disk_layer"]>): void {
    const root = path.resolve(symlink_root);
    if (!fs.existsSync(path.dirname(root)))
      this.#parts.onError(
        `runtime: ${path.dirname(root)} is not there; its values count once it is`,
      );
    let begins = true;
    const watch = new Watch(
      () => {
        // Its first event is that it begins.
        if (begins) return;
        watch.refresh();
        this.#settling ??= setTimeout(() => this.#swap(root), SETTLE_MS);
      },
      (unwatched) => unwatched && this.#parts.onError(`runtime: ${unwatchedMessage(unwatched)}`),
    );
    watch.set(new Map([[path.dirname(root), new Set([path.basename(root)])]]));
    begins = false;
    this.#watches.push(watch);
  }

  #swap(root: string): void {
    this.#settling = undefined;
    // Envoy loads once for each layer of that link.
    const links = this.#config.map((layer) => layer.disk_layer?.symlink_root);
    this.#load(links.filter((link) => link !== undefined && path.resolve(link) === root).length);
  }
}

/** Reads layers; as in Envoy, a directory that is not there is no layer. `cluster`: the one that this node belongs to. */
export function readLayers(
  layers: readonly RuntimeLayerConfig[],
  cluster: string,
  overrides: Values = new Map(),
): readonly ReadLayer[] {
  return layers.flatMap((config): ReadLayer | [] => {
    const { static_layer: tree, admin_layer: admin, disk_layer: disk } = config;
    if (tree !== undefined) return { config, values: staticValues(tree) };
    if (admin !== undefined) return { config, values: new Map(overrides) };
    if (disk === undefined) return { config, values: new Map() };
    const own = disk.append_service_cluster ? cluster : "";
    const directory = path.join(disk.symlink_root, disk.subdirectory, own);
    if (!fs.existsSync(directory)) return [];
    try {
      return { config, values: diskValues(directory) };
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      const trouble = `runtime layer "${config.name}" cannot be read: ${reason}`;
      return { config, values: new Map(), trouble };
    }
  });
}

/** The values of all layers, the last one winning. */
export function valuesOf(layers: readonly ReadLayer[]): RuntimeValues {
  const all = new Map<string, RuntimeValue>();
  for (const { values } of layers) for (const [key, { value }] of values) all.set(key, value);
  return [...all];
}

/** Values of a static layer: `{ a: { b: 1 } }` has the key `a.b`, and a map that is a FractionalPercent is a value. */
function staticValues(tree: Readonly<Record<string, unknown>>, prefix = ""): Map<string, Entry> {
  const values = new Map<string, Entry>();
  for (const [name, value] of Object.entries(tree)) {
    const key = prefix + name;
    if (typeof value === "string") values.set(key, { text: value, value: readScalar(value) });
    else if (typeof value === "number" || typeof value === "boolean")
      values.set(key, {
        text: typeof value === "number" ? sixDigits(value) : String(value),
        value,
      });
    else if (typeof value === "object" && value !== null) {
      const text = JSON.stringify(value);
      if (isValue(value)) values.set(key, { text, value: fractionOfMap(value) ?? text });
      else for (const [k, v] of staticValues(value as never, `${key}.`)) values.set(k, v);
    }
  }
  return values;
}

/** As in Envoy, a map with one of these keys is one value, even if it is no FractionalPercent, and so is an empty one. */
function isValue(map: object): boolean {
  return "numerator" in map || "denominator" in map || Object.keys(map).length === 0;
}

/** A number as Envoy shows it (C's `%g`): 123456789 is `1.23457e+08`. */
function sixDigits(value: number): string {
  const [mantissa = "", exponent = ""] = value.toExponential(5).split("e");
  const power = Number(exponent);
  if (power >= -4 && power < 6) return String(Number(value.toPrecision(6)));
  return `${Number(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}

function diskValues(root: string): Map<string, Entry> {
  const values = new Map<string, Entry>();
  const walk = (directory: string, prefix: string, depth: number): void => {
    if (depth > MAX_DEPTH) throw new Error(`more than ${MAX_DEPTH} directories deep`);
    for (const name of fs.readdirSync(directory).sort()) {
      const file = path.join(directory, name);
      const stat = fs.statSync(file);
      if (stat.isDirectory()) walk(file, `${prefix}${name}.`, depth + 1);
      else if (stat.isFile() && stat.size <= MAX_FILE_BYTES) {
        const text = withoutComments(fs.readFileSync(file, "utf8"));
        values.set(prefix + name, { text, value: readRuntimeText(text) });
      }
    }
  };
  walk(root, "", 0);
  return values;
}

/** As in Envoy: empty lines and comments fall away, and the line end stays of every line but the file's last one. */
function withoutComments(file: string): string {
  const lines = file.split("\n").filter((line) => line !== "");
  return lines
    .map((line, k) => (k === lines.length - 1 ? line.trimEnd() : `${line}\n`))
    .filter((line) => !line.startsWith("#"))
    .join("");
}

/**
 * As Envoy reads a FractionalPercent that is a map of a static layer: a numerator that is no whole number is 0, one that 32 bits do not
 * hold is cut, and a denominator that is none of these names, or a third field, makes it no fraction.
 */
function fractionOfMap(map: object): RuntimeValue | undefined {
  const { numerator, denominator = "HUNDRED", ...rest } = map as Record<string, unknown>;
  const known = typeof denominator === "string" ? DENOMINATORS[denominator] : undefined;
  if (known === undefined || Object.keys(rest).length > 0) return undefined;
  return {
    numerator: Number.isInteger(numerator) ? (numerator as number) >>> 0 : 0,
    denominator: known,
  };
}

/** The value of a text from a file or an operator: a number, a boolean, a FractionalPercent (YAML), else the text itself. */
export function readRuntimeText(text: string): RuntimeValue {
  const value = readScalar(text);
  if (typeof value !== "string" || !text.includes("numerator")) return value;
  try {
    return fractionOf(yaml.parse(text)) ?? text;
  } catch {
    return text;
  }
}

/** A number, a boolean, or the text itself. */
function readScalar(text: string): number | boolean | string {
  const trimmed = text.trim();
  if (/^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/.test(trimmed)) return Number(trimmed);
  const lower = trimmed.toLowerCase();
  return lower === "true" || lower === "false" ? lower === "true" : text;
}

const DENOMINATORS: Readonly<Record<string, number>> = {
  HUNDRED: 100,
  TEN_THOUSAND: 10_000,
  MILLION: 1_000_000,
};

function fractionOf(value: unknown): RuntimeValue | undefined {
  if (typeof value !== "object" || value === null || !("numerator" in value)) return undefined;
  const { numerator, denominator = "HUNDRED", ...rest } = value as Record<string, unknown>;
  const whole = Number(numerator);
  if (Object.keys(rest).length > 0 || !Number.isInteger(whole) || whole < 0) return undefined;
  const known = DENOMINATORS[String(denominator).toUpperCase()];
  return known === undefined ? undefined : { numerator: whole, denominator: known };
}
