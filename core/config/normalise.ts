import { isCanonical } from "./canonical.ts";
import type { Descriptor, Field } from "./descriptor.ts";
import { didYouMean, listed, type Place, type Report } from "./diagnostic.ts";
import {
  childPlace,
  invalidAt,
  isNull,
  ListNode,
  MapNode,
  type Node,
  ScalarNode,
  scalar,
  structValue,
} from "./document.ts";
import type { Entry } from "./fields.ts";
import { isEnvoyName, type Rewriter } from "./rewrite.ts";
import { itemField, keyField, violation } from "./rules.ts";
import {
  canonicalDuration,
  type Reading,
  readDuration,
  readScalar,
  readString,
  SCALARS,
  shown,
  WRAPPERS,
} from "./scalars.ts";

const TYPED_STRUCTS = new Set(["xds.type.v3.TypedStruct", "udpa.type.v1.TypedStruct"]);
const ANY = "google.protobuf.Any";

/** An error that counts only if no package takes the node. */
interface LooseEnd {
  readonly place: Place;
  readonly message: string;
  readonly help?: string;
  /** True: a warning, since it may belong to an Envoy that is newer than the descriptor. */
  readonly newer?: boolean;
  /** True: it was a TypedStruct, which Envoy accepts with any type as long as the entry is not used. */
  readonly isStruct?: boolean;
  /** It is the `config` of this entry, an extension's. */
  readonly entry?: MapNode;
}

/**
 * Brings a tree into protobuf's canonical JSON, in place: v3's own field names, enum names as declared, Durations and numbers in
 * one form; and checks validation rules. Errors go into the report, and the walk goes on.
 */
export class Normaliser {
  readonly descriptor: Descriptor;
  readonly rewriter: Rewriter;
  readonly #report: Report;
  /** Nodes that only a package can accept: an Any without a type or with one that Envoy lacks, and `config` of a short form. */
  readonly loose = new Map<Node, LooseEnd>();

  /** Entries may be ExtensionRefs already: `{name, package, config}`, in a listener that a service brings along. */
  readonly #resolved: boolean;
  readonly #allowUnknown: boolean;

  constructor(
    descriptor: Descriptor,
    rewriter: Rewriter,
    report: Report,
    options: { readonly resolved: boolean; readonly allowUnknown: boolean },
  ) {
    this.descriptor = descriptor;
    this.rewriter = rewriter;
    this.#report = report;
    this.#resolved = options.resolved;
    this.#allowUnknown = options.allowUnknown;
  }

  /** Called at the end: reports the nodes that no package has taken. */
  reportLoose(): void {
    for (const { place, message, help, newer } of this.loose.values())
      if (newer === true) this.#report.unimplemented(place, message, help);
      else this.#report.error(place, message, help);
  }

  /** Normalises a node as that message. Answers the node that takes its place, which may be the same. */
  message(type: string, node: Node): Node {
    const special = this.#special(type, node);
    if (special !== undefined) return special;
    if (node.kind !== "map") {
      const what = node.kind === "list" ? "is a list" : `${shown(node)} is a value`;
      return this.#invalid(node, `${what}; a map of fields belongs here`);
    }
    node.message = type;
    const { unread } = node;
    // What `rewrite` changes in v3 files, deprecated fields, is not canonical either.
    if (unread !== undefined && this.rewriter.era === "v3") {
      if (isCanonical(this.descriptor, type, unread)) {
        unread.normalise = (map) => this.message(type, map);
        return node;
      }
    }
    this.rewriter.rewrite(type, node);
    const message = this.descriptor.message(type);
    if (message !== undefined) this.#fields(type, node);
    return node;
  }

  /** Normalises an Any of a known type, whose fields stand beside `@type`. */
  any(node: MapNode, type: string): Node {
    const url = node.entries.get("@type");
    node.entries.delete("@type");
    if (isSpecial(type)) {
      const value = node.get("value");
      if (value !== undefined) node.set("value", this.message(type, value));
      node.message = type;
    } else this.message(type, node);
    let entry = node.entries.first;
    node.entries.clear();
    const place = url?.place ?? node.place;
    node.set("@type", scalar(place, `type.googleapis.com/${type}`), place);
    for (let next: Entry | undefined; entry !== undefined; entry = next) {
      next = entry.next;
      node.entries.add(entry);
    }
    return node;
  }

  #fields(type: string, node: MapNode): void {
    const message = this.descriptor.message(type)!;
    const { entries } = node;
    let entry = entries.first;
    entries.clear();
    let oneofs: Map<string, string> | undefined;
    for (let next: Entry | undefined; entry !== undefined; entry = next) {
      next = entry.next;
      const name = this.descriptor.fieldName(type, entry.key);
      if (name === undefined) {
        if (this.#isKept(type, node, entry)) entries.add(entry);
        continue;
      }
      const field = message.fields[name]!;
      if (isNull(entry.value) && field.t !== "google.protobuf.Value") continue;
      if (field.o !== undefined) {
        oneofs ??= new Map();
        const other = oneofs.get(field.o);
        if (other !== undefined)
          this.#report.error(
            entry.place,
            `"${name}" and "${other}" exclude each other`,
            "keep one of them",
          );
        oneofs.set(field.o, name);
      }
      if (entries.has(name)) {
        this.#report.error(entry.place, `"${name}" is set already`);
        entries.delete(name);
      }
      entry.key = name;
      entry.value = this.#field(field, entry.value);
      entries.add(entry);
    }
    this.#checkRules(type, node, oneofs);
  }

  #checkRules(type: string, node: MapNode, oneofs: ReadonlyMap<string, string> | undefined): void {
    for (const { name, field, values, absent } of this.descriptor.ruled(type)) {
      const value = node.get(name);
      const found = value === undefined ? absent : violation(field, value, values);
      if (found === undefined) continue;
      // An extension in the short form `{ name, config }` needs no typed_config.
      if (name === "typed_config" && value === undefined && node.has("config")) continue;
      const place = value?.place ?? childPlace(node.place, node.place.offset, name);
      const words = value?.kind === "scalar" ? `${shown(value)} ${found}` : found;
      const isOwn = name === "typed_config" && !isEnvoyName(node.string("name"));
      this.#report.error(place, words, isOwn ? "a filter of your own takes config: {}" : undefined);
      if (value === undefined) node.set(name, invalidAt(place));
    }
    const message = this.descriptor.message(type)!;
    for (const oneof of message.required ?? []) {
      if (oneofs?.has(oneof)) continue;
      const members = Object.keys(message.fields).filter(
        (name) => message.fields[name]!.o === oneof && message.fields[name]!.d === undefined,
      );
      this.#report.error(node.place, `one of ${listed(members)} is required`);
      node.set(members[0] ?? oneof, invalidAt(node.place));
    }
  }

  /** Handles a field that the message lacks. True: it stays, since a package may take it. False: it has been reported. */
  #isKept(type: string, node: MapNode, { key, place, value }: Entry): boolean {
    const message = this.descriptor.message(type)!;
    if (key === "package" && this.#resolved) return true;
    if (key === "config" && message.fields.typed_config?.t === ANY) {
      // The short form: an error, unless the package that `name` means takes it.
      const help = "write typed_config with its @type";
      this.loose.set(value, { place, message: 'unknown field "config"', help, entry: node });
      return true;
    }
    const help =
      key === "<<"
        ? "merge keys are not read, as in Envoy; write the fields out"
        : (this.rewriter.hint(type, key) ?? didYouMean(key, Object.keys(message.fields)));
    if (this.#allowUnknown) this.#report.warn(place, `unknown field "${key}" is left out`, help);
    else this.#report.error(place, `unknown field "${key}"`, help);
    return false;
  }

  #field(field: Field, node: Node): Node {
    if (field.k !== undefined) return this.#mapField(field, node);
    if (field.r === undefined) return this.#value(field, node);
    // As in Envoy, a lone value where a list belongs is a list of one.
    if (node.kind !== "list") return new ListNode(node.place, [this.#item(field, node)]);
    const { items } = node;
    for (let k = 0; k < items.length; k++) items[k] = this.#item(field, items[k]!);
    return node;
  }

  #item(field: Field, node: Node): Node {
    if (isNull(node) && field.t !== "google.protobuf.Value")
      return this.#invalid(node, "an entry of a list must not be null");
    const item = this.#value(field, node);
    const rules = itemField(field);
    this.#checkItem(rules, item);
    return item;
  }

  #checkItem(rules: Field | undefined, item: Node): void {
    const found =
      rules && violation(rules, item, rules.e === 1 ? this.descriptor.enum(rules.t) : undefined);
    if (found !== undefined)
      this.#report.error(item.place, item.kind === "scalar" ? `${shown(item)} ${found}` : found);
  }

  #mapField(field: Field, node: Node): Node {
    if (node.kind !== "map") return this.#invalid(node, "a map belongs here");
    const keys = keyField(field);
    for (const [key, entry] of [...node.entries]) {
      const place = entry.place;
      if (isNull(entry.value) && field.t !== "google.protobuf.Value") {
        node.set(
          key,
          this.#invalid(entry.value, "an entry of a map must not be null", undefined, place),
          place,
        );
        continue;
      }
      this.#checkItem(keys, scalar(place, key));
      const value = this.#value(field, entry.value);
      this.#checkItem(itemField(field), value);
      node.entries.set(key, { place, value });
    }
    return node;
  }

  #value(field: Field, node: Node): Node {
    if (node.kind === "scalar" && node.invalid) return node;
    if (field.e === 1) return this.#enum(field.t, node);
    if (SCALARS.has(field.t)) return this.#scalar(field.t, node);
    return this.message(field.t, node);
  }

  #scalar(type: string, node: Node): Node {
    if (node.kind !== "scalar") {
      const what = node.kind === "list" ? "a list" : "a map";
      return this.#invalid(node, `is ${what}; a ${WORDS[type] ?? "number"} belongs here`);
    }
    if (type === "string" && typeof node.value === "string") return node;
    return this.#read(node, readScalar(type, node));
  }

  #read(node: ScalarNode, reading: Reading): Node {
    if ("problem" in reading) return this.#invalid(node, reading.problem, reading.help);
    node.value = reading.value;
    node.json = reading.json;
    return node;
  }

  #enum(type: string, node: Node): Node {
    if (node.kind !== "scalar") return this.#invalid(node, "a name belongs here");
    const values = this.descriptor.enum(type);
    if (values === undefined) return node;
    const { value } = node;
    if (typeof value === "number") {
      const name = Object.keys(values).find((key) => values[key] === value);
      if (name !== undefined) return named(node, name);
      return Number.isInteger(value) ? node : this.#notOneOf(node, Object.keys(values));
    }
    // YAML reads `on`, `off`, `yes` and `no` as booleans, even where an enum's name is meant.
    const word = (typeof value === "string" ? value : node.text).toUpperCase();
    const name = Object.keys(values).find((key) => key.toUpperCase() === word);
    if (name === undefined || typeof value === "boolean")
      return this.#notOneOf(node, Object.keys(values));
    return named(node, name);
  }

  #notOneOf(node: ScalarNode, names: readonly string[]): Node {
    const near = typeof node.value === "string" ? didYouMean(node.value, names) : undefined;
    return this.#invalid(node, `${shown(node)} is not one of ${listed(names)}`, near);
  }

  /** Normalises a message that has a JSON form of its own, such as Duration, Any or Struct. Undefined: it is no such message. */
  #special(type: string, node: Node): Node | undefined {
    const wrapped = WRAPPERS[type];
    if (wrapped !== undefined) return this.#wrapper(wrapped, node);
    if (!type.startsWith("google.protobuf.")) return undefined;
    switch (type) {
      case "google.protobuf.Duration":
        return this.#duration(node);
      case ANY:
        return this.#any(node);
      case "google.protobuf.Struct":
        return node.kind === "map" ? structValue(node) : this.#invalid(node, "a map belongs here");
      case "google.protobuf.ListValue":
        return node.kind === "list"
          ? structValue(node)
          : this.#invalid(node, "a list belongs here");
      case "google.protobuf.Value":
        return structValue(node);
      case "google.protobuf.Timestamp":
        return this.#timestamp(node);
      case "google.protobuf.FieldMask":
        return node.kind === "scalar"
          ? this.#read(node, readString(node))
          : this.#invalid(node, "field names with commas between them belong here");
      default:
        // google.protobuf.Empty.
        if (node.kind !== "map" || node.entries.size > 0)
          return this.#invalid(node, "must be an empty map: {}");
        return node;
    }
  }

  /** A wrapper is written as its value or, as Envoy takes it too, as the message with that value in it. */
  #wrapper(type: string, node: Node): Node {
    if (node.kind !== "map") return this.#scalar(type, node);
    for (const [key, entry] of node.entries) {
      if (key === "value") continue;
      const help = `write the ${WORDS[type] ?? "number"} itself`;
      return this.#invalid(node, `unknown field "${key}"`, help, entry.place);
    }
    const value = node.get("value");
    if (value !== undefined && !isNull(value)) return this.#scalar(type, value);
    const none = type === "bool" ? false : type === "string" || type === "bytes" ? "" : 0;
    return this.#scalar(type, scalar(node.place, none));
  }

  #duration(node: Node): Node {
    if (node.kind === "scalar") return this.#read(node, readDuration(node));
    if (node.kind === "list") return this.#invalid(node, "a duration belongs here");
    const parts = { seconds: 0, nanos: 0 };
    for (const [key, entry] of node.entries) {
      if (key !== "seconds" && key !== "nanos")
        return this.#invalid(
          node,
          `unknown field "${key}"`,
          "a duration has seconds and nanos",
          entry.place,
        );
      const read = this.#scalar(key === "seconds" ? "int64" : "int32", entry.value);
      if (read.kind !== "scalar" || read.invalid) return invalidAt(node.place, node);
      parts[key] = Number(read.value ?? 0);
    }
    const negative = parts.seconds < 0 || parts.nanos < 0;
    const seconds = BigInt(Math.abs(parts.seconds));
    const text = canonicalDuration(negative ? "-" : "", seconds, Math.abs(parts.nanos));
    return new ScalarNode(node.place, text, text);
  }

  #timestamp(node: Node): Node {
    const text = node.kind === "scalar" ? String(node.value) : "";
    if (/^\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)$/.test(text))
      return node;
    return this.#invalid(node, "is not a time", 'write one like "2030-01-31T12:00:00Z"');
  }

  #any(node: Node): Node {
    if (node.kind !== "map") return this.#invalid(node, "a map with @type belongs here");
    const url = node.get("@type");
    if (url === undefined) {
      this.loose.set(node, { place: node.place, message: '"@type" is required' });
      return node;
    }
    const text = node.string("@type");
    if (text === undefined || !text.includes("/"))
      return this.#invalid(node, "is not a type", 'write "type.googleapis.com/…"', url.place);
    const type = this.rewriter.typeName(text.slice(text.lastIndexOf("/") + 1));
    if (TYPED_STRUCTS.has(type)) return this.#typedStruct(node);
    if (!this.descriptor.knows(type) && !isSpecial(type)) {
      const help = didYouMean(type, this.descriptor.types());
      // A type of Envoy's that the descriptor lacks may be newer than the descriptor.
      const newer = type.startsWith("envoy.");
      const message = newer ? `unknown type "${type}"` : `Envoy has no type "${type}"`;
      const loose = { place: url.place, message, newer };
      this.loose.set(node, help === undefined ? loose : { ...loose, help });
      node.set("@type", scalar(url.place, `type.googleapis.com/${type}`), url.place);
      return node;
    }
    return this.any(node, type);
  }

  /** Unwraps a TypedStruct, `{type_url, value}`: the inner type decides, as in Envoy. */
  #typedStruct(node: MapNode): Node {
    const url = node.string("type_url") ?? node.string("typeUrl");
    const value = node.get("value");
    for (const [key, entry] of node.entries)
      if (!["@type", "type_url", "typeUrl", "value"].includes(key))
        this.#report.error(entry.place, `unknown field "${key}"`);
    if (url === undefined) return this.#invalid(node, '"type_url" is required in a TypedStruct');
    if (value !== undefined && value.kind !== "map" && !isNull(value))
      return this.#invalid(node, "a map of fields belongs here", undefined, value.place);
    const inner = new MapNode(node.place, value?.kind === "map" ? value.entries : undefined);
    const at = (node.get("type_url") ?? node.get("typeUrl"))!.place;
    inner.set("@type", scalar(at, url.includes("/") ? url : `type.googleapis.com/${url}`), at);
    const made = this.#any(inner);
    const loose = this.loose.get(made);
    if (loose !== undefined) this.loose.set(made, { ...loose, isStruct: true });
    return made;
  }

  #invalid(node: Node, message: string, help?: string, place = node.place): Node {
    this.#report.error(place, message, help);
    return invalidAt(node.place, node);
  }
}

/** True for messages that stand under `value` inside an Any, since they have a JSON form of their own. */
function isSpecial(type: string): boolean {
  return type.startsWith("google.protobuf.");
}

const WORDS: { readonly [type: string]: string } = {
  bool: "boolean",
  string: "string",
  bytes: "string",
};

function named(node: ScalarNode, name: string): ScalarNode {
  if (node.value !== name) node.isRenamed = true;
  node.value = name;
  return node;
}
