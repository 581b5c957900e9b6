import type { Place, Report } from "./diagnostic.ts";
import { Entry, Fields } from "./fields.ts";
import type { Unread } from "./unread.ts";

/** A config as a tree, in which every node keeps its place in the file through all rewriting. */
export type Node = MapNode | ListNode | ScalarNode;

export type ScalarValue = string | number | boolean | undefined;

export class ScalarNode {
  readonly kind = "scalar";
  readonly place: Place;
  /** Undefined: `null`, which counts as absent, or a value whose error has been reported (`invalid`). */
  value: ScalarValue;
  /** As written, with its quotes: what messages show. */
  readonly text: string;
  /** Its canonical JSON, where that is not `value`: a 64-bit integer is a string there. */
  json: string | undefined = undefined;
  /** The name of an enum's value, which the file has in other letters, or as a number. */
  isRenamed = false;
  invalid = false;
  /** What the file has in the place of an invalid value. Undefined: nothing, something is missing. */
  was: Node | undefined = undefined;

  constructor(place: Place, value: ScalarValue, text: string) {
    this.place = place;
    this.value = value;
    this.text = text;
  }
}

/**
 * A YAML number that is no 32-bit integer. Envoy's YAML reader passes it on as text; a numeric field turns that back into a
 * number, a Struct does not.
 */
export class LooseNumber extends ScalarNode {}

/** A `null` in a Struct, where it is a value. */
export class StructNull extends ScalarNode {}

export class ListNode {
  readonly kind = "list";
  readonly place: Place;
  items: Node[];

  constructor(place: Place, items: Node[] = []) {
    this.place = place;
    this.items = items;
  }
}

export class MapNode {
  readonly kind = "map";
  readonly place: Place;
  /** The protobuf message that it is. Undefined: it is none, and only a package's schema describes it. */
  message: string | undefined = undefined;
  /** The map as a plain value; undefined once somebody has asked for its entries. */
  unread: Unread | undefined = undefined;
  #entries: Fields;

  constructor(place: Place, entries = new Fields()) {
    this.place = place;
    this.#entries = entries;
  }
  get entries(): Fields {
    const { unread } = this;
    if (unread !== undefined) {
      this.unread = undefined;
      this.#entries = unread.read();
      unread.normalise?.(this);
    }
    return this.#entries;
  }
  get(key: string): Node | undefined {
    return this.entries.get(key)?.value;
  }
  /** The map under that key, if it is one. */
  map(key: string): MapNode | undefined {
    const value = this.get(key);
    return value?.kind === "map" ? value : undefined;
  }
  /** The items under that key; a lone value counts as a list of one, as in Envoy. */
  list(key: string): readonly Node[] {
    const value = this.get(key);
    if (value === undefined || isNull(value)) return [];
    return value.kind === "list" ? value.items : [value];
  }
  string(key: string): string | undefined {
    const value = this.get(key);
    return value?.kind === "scalar" && typeof value.value === "string" ? value.value : undefined;
  }
  has(key: string): boolean {
    return this.entries.has(key);
  }
  set(key: string, value: Node, place: Place = value.place): void {
    this.entries.set(key, { place, value });
  }
  /** Adds a field of the file. Of two with one name the last counts, and a warning is reported. */
  add(key: string, value: Node, place: Place, report: Report): void {
    if (this.entries.has(key)) {
      report.warn(place, `"${key}" is written twice; this one counts`);
      this.entries.delete(key);
    }
    this.entries.add(new Entry(key, place, value));
  }
  delete(key: string): Node | undefined {
    const value = this.get(key);
    this.entries.delete(key);
    return value;
  }
}

/** Makes a scalar for rewriting, at the place of the node that it is made from. */
export function scalar(place: Place, value: string | number | boolean): ScalarNode {
  return new ScalarNode(
    place,
    value,
    typeof value === "string" ? JSON.stringify(value) : `${value}`,
  );
}
/** Makes a map for rewriting; undefined fields are left out. */
export function mapOf(place: Place, fields: Readonly<Record<string, Node | undefined>>): MapNode {
  const node = new MapNode(place);
  for (const [key, value] of Object.entries(fields)) if (value !== undefined) node.set(key, value);
  return node;
}
/** Stands for a value whose error has been reported. */
export function invalidAt(place: Place, was?: Node): ScalarNode {
  const node = new ScalarNode(place, undefined, "");
  node.invalid = true;
  node.was = was;
  return node;
}
/** True for what stands in the place of a field that the file lacks. */
export function isMissing(node: Node): boolean {
  return node.kind === "scalar" && node.invalid && node.was === undefined;
}
/** True for a `null`, which counts as absent outside Structs. */
export function isNull(node: Node): boolean {
  return (
    node.kind === "scalar" &&
    node.value === undefined &&
    !node.invalid &&
    !(node instanceof StructNull)
  );
}

/** Converts a tree inside a Struct to what Envoy reads there: nulls are values, and loose numbers are text. */
export function structValue(node: Node): Node {
  if (node.kind === "map") {
    for (const [, entry] of node.entries) entry.value = structValue(entry.value);
    return node;
  }
  if (node.kind === "list") {
    node.items = node.items.map(structValue);
    return node;
  }
  if (isNull(node)) return new StructNull(node.place, undefined, node.text);
  return node instanceof LooseNumber ? new ScalarNode(node.place, node.text, node.text) : node;
}

/** A deep copy. */
export function clone(node: Node): Node {
  if (node.kind === "list") return new ListNode(node.place, node.items.map(clone));
  if (node.kind === "map") {
    const copy = new MapNode(node.place);
    copy.message = node.message;
    for (const [key, entry] of node.entries) copy.set(key, clone(entry.value), entry.place);
    return copy;
  }
  const Kind = node.constructor as typeof ScalarNode;
  const copy = new Kind(node.place, node.value, node.text);
  copy.json = node.json;
  copy.invalid = node.invalid;
  copy.was = node.was;
  return copy;
}

/** Plain JSON of a tree; `dump` writes scalars as Envoy's config_dump would. */
export function plain(node: Node, dump = false): unknown {
  if (node instanceof StructNull) return null;
  if (node.kind === "scalar" && dump && node.was !== undefined) return plain(node.was, dump);
  if (node.kind === "scalar") return dump ? (node.json ?? node.value ?? null) : node.value;
  if (node.kind === "list") return node.items.map((item) => plain(item, dump));
  const out: Record<string, unknown> = {};
  for (const [key, entry] of node.entries) define(out, key, plain(entry.value, dump));
  return out;
}

/** Sets a field. `__proto__` stays an ordinary key. */
export function define(object: Record<string, unknown>, key: string, value: unknown): void {
  if (key === "__proto__")
    Object.defineProperty(object, key, {
      value,
      enumerable: true,
      configurable: true,
      writable: true,
    });
  else object[key] = value;
}

/** Makes a tree of a value that stands in no file: every node has the same offset. */
export function fromValue(value: unknown, place: Place): Node {
  if (Array.isArray(value))
    return new ListNode(
      place,
      value.map((item, i) => fromValue(item, childPlace(place, place.offset, i))),
    );
  if (typeof value === "object" && value !== null) {
    const node = new MapNode(place);
    for (const [key, item] of Object.entries(value)) {
      const at = childPlace(place, place.offset, key);
      if (item !== undefined) node.set(key, fromValue(item, at), at);
    }
    return node;
  }
  if (value === null || value === undefined) return new ScalarNode(place, undefined, "null");
  return scalar(place, value as string | number | boolean);
}

/** A place inside another one. Its path is put together when it is read: a large file has a million places, and few findings. */
class Inner implements Place {
  readonly offset: number;
  readonly #parent: Place;
  /** Undefined: it has the path of its parent. */
  readonly #key: string | number | undefined;

  constructor(offset: number, parent: Place, key: string | number | undefined) {
    this.offset = offset;
    this.#parent = parent;
    this.#key = key;
  }

  get path(): string {
    const { path } = this.#parent;
    const key = this.#key;
    if (key === undefined) return path;
    if (typeof key === "number") return `${path}[${key}]`;
    if (!/^[\w@$-]+$/.test(key)) return `${path}[${JSON.stringify(key)}]`;
    return path === "" ? key : `${path}.${key}`;
  }
}

/** The place of a field or an entry, at its own offset. */
export function childPlace(parent: Place, offset: number, key: string | number): Place {
  return new Inner(offset, parent, key);
}
/** The same path at another offset. */
export function placeAt(parent: Place, offset: number): Place {
  return parent.offset === offset ? parent : new Inner(offset, parent, undefined);
}

/** Makes a node of a scalar without quotes. */
export function plainNode(text: string, place: Place): ScalarNode {
  const value = plainScalar(text);
  const isLoose = typeof value === "number" && (value !== (value | 0) || !INTEGER.test(text));
  return isLoose ? new LooseNumber(place, value, text) : new ScalarNode(place, value, text);
}

// What yaml-cpp takes for true and false: lower case, upper case, or a capital first.
const TRUE = /^(?:y|Y|yes|Yes|YES|true|True|TRUE|on|On|ON)$/;
const FALSE = /^(?:n|N|no|No|NO|false|False|FALSE|off|Off|OFF)$/;
const INTEGER = /^[-+]?(?:0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*)$/;
const FLOAT = /^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$/;

/** The value of a scalar without quotes, as Envoy (yaml-cpp) reads it. Undefined: null. */
export function plainScalar(text: string): ScalarValue {
  if (text === "" || /^(?:~|null|Null|NULL)$/.test(text)) return undefined;
  if (TRUE.test(text)) return true;
  if (FALSE.test(text)) return false;
  if (INTEGER.test(text)) {
    const digits = text.replace(/^[-+]/, "");
    const number = /^0[0-7]+$/.test(digits) ? Number.parseInt(digits, 8) : Number(digits);
    // Beyond 2^53 a number would lose digits: it stays text, and the field's type decides.
    if (!Number.isSafeInteger(number)) return text;
    return text.startsWith("-") ? -number : number;
  }
  if (FLOAT.test(text)) return Number(text);
  if (/^[-+]?\.(?:inf|Inf|INF)$/.test(text)) return text.startsWith("-") ? -Infinity : Infinity;
  if (/^\.(?:nan|NaN|NAN)$/.test(text)) return NaN;
  return text;
}
