import { fitted } from "./canonical.ts";
import { check, type Failure } from "./check.ts";
import { readSource } from "./data-source.ts";
import { snakeCase } from "./descriptor.ts";
import { didYouMean, listed, type Place, quote, type Report } from "./diagnostic.ts";
import {
  childPlace,
  define,
  isNull,
  ListNode,
  type MapNode,
  type Node,
  plain,
  type ScalarNode,
} from "./document.ts";
import { ExtensionResolver, type RouteUse, type Use } from "./extensions.ts";
import type { Entry } from "./fields.ts";
import { readLuaSource } from "./lua-source.ts";
import { checkOutputFile } from "./named-paths.ts";
import type { Normaliser } from "./normalise.ts";
import type { Registry } from "./registry.ts";
import type { Era } from "./rewrite.ts";
import { parseDuration, readBool, readDuration, readFloat, readString } from "./scalars.ts";
import { type Schema, type Shape, shapeOf } from "./schema.ts";
import { readScript } from "./script.ts";
import { sentences } from "./sentences.ts";
import { reportUnimplemented } from "./unimplemented.ts";

/** Stands for an entry that is left out of its list: an optional filter that is not implemented. */
const SKIPPED = Symbol("skipped");

export interface BuilderParts {
  readonly registry: Registry;
  readonly normaliser: Normaliser;
  readonly report: Report;
  readonly era: Era;
  /** Entries may be ExtensionRefs already, in a listener that a service brings along. */
  readonly resolved: boolean;
}

/**
 * Builds what `setup` gets, from the canonical tree and the schemas of packages: extensions are resolved, durations are in
 * milliseconds, defaults are filled in, fields that nobody implements are left out and reported.
 */
export class Builder {
  /** The node that each object of the result came from. */
  readonly origin = new Map<object, Node>();
  /** Nodes that have been reported: what a schema says of them would only repeat it. */
  readonly #refused = new Set<Node>();
  readonly #report: Report;
  readonly #normaliser: Normaliser;
  readonly #registry: Registry;
  readonly #resolver: ExtensionResolver;

  constructor(parts: BuilderParts) {
    this.#report = parts.report;
    this.#normaliser = parts.normaliser;
    this.#registry = parts.registry;
    this.#resolver = new ExtensionResolver(parts);
  }

  /**
   * Builds one package's config (or core's own part) and checks it against that schema. Undefined: there is none, or it was
   * refused.
   */
  part(schema: Schema, node: Node): unknown {
    const value = this.#value(node, shapeOf(schema, schema), this.#known(node));
    if (value === SKIPPED || value === undefined) return undefined;
    this.#explain(check(value, schema), node);
    return value;
  }

  /** True for a message of Envoy's. */
  #known(node: Node): boolean {
    return node.kind === "map" && node.message !== undefined;
  }

  /** Reports what the schema refuses, at the user's lines; nothing where an error has been reported already. */
  #explain(failures: readonly Failure[], root: Node): void {
    if (failures.length === 0) return;
    const at = (pointer: string) => find(root, pointer)?.node;
    const inEnvoy = (pointer: string) => {
      const found = find(root, pointer);
      const message = found?.parent?.message;
      if (message === undefined || found?.key === undefined) return false;
      return this.#normaliser.descriptor.message(message)?.fields[found.key]?.e === 1;
    };
    for (const said of sentences(failures, at, inEnvoy)) {
      const node = at(said.pointer) ?? nearest(root, said.pointer);
      if (this.#refused.has(node) || (node.kind === "scalar" && node.invalid)) continue;
      if (said.missing !== undefined) {
        const entry = node.kind === "map" ? node.get(said.missing) : undefined;
        if (entry?.kind === "scalar" && entry.invalid) continue;
        if (entry !== undefined && !isNull(entry)) continue;
      }
      const place =
        said.missing === undefined
          ? node.place
          : childPlace(node.place, node.place.offset, said.missing);
      if (!this.#report.has(place)) this.#report.error(place, said.message, said.help);
    }
  }

  #value(node: Node, shape: Shape, known: boolean): unknown {
    if (node.kind === "scalar" && (node.invalid || isNull(node))) return undefined;
    if (shape.extension !== undefined) return this.#extension(shape.extension, node, shape.root);
    if (shape.section !== undefined) return this.#section(shape.section, node);
    if (shape.typed !== undefined) return this.#typed(shape.typed, node, shape.root);
    if (shape.dataSource !== undefined && node.kind === "map")
      return this.#dataSource(node, shape.dataSource);
    if (shape.outputFile && node.kind === "scalar") checkOutputFile(node, this.#report);
    if (shape.lua) return this.#lua(node);
    if (shape.script !== undefined) return this.#script(node, shape.script);
    if (shape.duration) return this.#duration(node);
    if (node.kind === "map") return this.#map(node, shape, known);
    if (node.kind === "list") return this.#list(node, shape, known);
    if (known) return plain(node);
    if (shape.list) return this.#list(new ListNode(node.place, [node]), shape, known);
    return this.#looseScalar(node, shape);
  }

  #dataSource(node: MapNode, holds: "text" | "bytes"): unknown {
    const out = readSource(node, holds, this.#report);
    if (out === undefined) {
      this.#refused.add(node);
      return undefined;
    }
    this.origin.set(out, node);
    return out;
  }

  #lua(node: Node): unknown {
    const source = readLuaSource(node, this.#report);
    if (source === undefined) this.#refused.add(node);
    else this.origin.set(source, node);
    return source;
  }

  #script(node: Node, form: NonNullable<Schema["script"]>): unknown {
    const source = readScript(node, form, this.#report);
    if (source === undefined) this.#refused.add(node);
    else this.origin.set(source, node);
    return source;
  }

  /** Builds an Any of one of the types that the package lists with their schemas. */
  #typed(types: NonNullable<Schema["typed"]>, node: Node, root: Schema): unknown {
    if (node.kind !== "map") {
      this.#report.error(node.place, 'a map with "@type" belongs here');
      this.#refused.add(node);
      return undefined;
    }
    const url = node.string("@type") ?? "";
    const type = url.slice(url.lastIndexOf("/") + 1);
    const schema = Object.hasOwn(types, type) ? types[type] : undefined;
    if (schema === undefined) {
      const place = node.get("@type")?.place ?? node.place;
      this.#normaliser.loose.delete(node);
      const what = url === "" ? '"@type" is missing' : `"${type}" is not implemented here`;
      this.#report.error(place, what, `what works here: ${listed(Object.keys(types))}`);
      this.#refused.add(node);
      return undefined;
    }
    this.#normaliser.loose.delete(node);
    const value = this.#value(node, shapeOf(schema, root), this.#known(node));
    if (typeof value !== "object" || value === null) return undefined;
    // Checked by itself: the schema around it does not describe the message.
    this.#explain(check(value, schema), node);
    return Object.assign(value, { "@type": type });
  }

  #section(packageName: string, node: Node): unknown {
    const found = this.#registry.packages.find((p) => p.package === packageName)!;
    return this.part(found.schema as Schema, node);
  }

  #map(node: MapNode, shape: Shape, known: boolean): unknown {
    const plainly = this.#unread(node, shape);
    if (plainly !== undefined) return plainly;
    const out: Record<string, unknown> = {};
    this.origin.set(out, node);
    if (!known) this.#canonicalKeys(node, shape);
    for (let entry = node.entries.first; entry !== undefined; entry = entry.next) {
      const { key, place } = entry;
      if (key === "@type") continue;
      const field = shape.field(key);
      if (field.perRoute) {
        const ref = this.#routeConfig(key, place, entry.value);
        if (ref !== undefined) define(out, key, ref);
      } else if (field.shape !== undefined) {
        const value = this.#value(entry.value, field.shape, known || this.#known(entry.value));
        if (value !== undefined && value !== SKIPPED) define(out, key, value);
      } else if (field.open) {
        if (!isNull(entry.value)) define(out, key, plain(entry.value));
      } else this.#notListed(node, entry, shape.properties, known);
    }
    return out;
  }

  /** Builds a map that is in canonical form from its plain value. Undefined: it has to be read. */
  #unread({ unread }: MapNode, shape: Shape): object | undefined {
    if (unread?.normalise === undefined) return undefined;
    const value = unread.take();
    return value && (fitted(value, shape) as object | undefined);
  }

  #notListed(
    node: MapNode,
    { key, place, value }: Entry,
    properties: readonly string[],
    known: boolean,
  ): void {
    const { descriptor } = this.#normaliser;
    if (known) {
      // A Struct, or a message that the descriptor does not describe: it is unknown what would be lost.
      if (node.message === undefined || descriptor.message(node.message) === undefined) {
        this.#report.unimplemented(place, "known to Envoy, not implemented here");
        return;
      }
      if (value.kind === "scalar" && value.invalid) return;
      reportUnimplemented(this.#report, descriptor, node, key, place, value);
      return;
    }
    const help =
      didYouMean(key, properties) ??
      (properties.length === 0 ? "it takes no fields" : `its fields are ${listed(properties)}`);
    this.#report.error(place, `unknown field ${quote(key)}`, help);
  }

  /** Renames lowerCamelCase keys, which packages' own configs may use as Envoy's messages may. */
  #canonicalKeys(node: MapNode, shape: Shape): void {
    for (const [key, entry] of [...node.entries]) {
      if (shape.field(key).shape !== undefined) continue;
      const snake = snakeCase(key);
      if (snake === key || node.has(snake) || !shape.hasProperty(snake)) continue;
      node.delete(key);
      node.entries.set(snake, entry);
    }
  }

  #list(node: ListNode, shape: Shape, known: boolean): unknown {
    const out: unknown[] = [];
    const kept: Node[] = [];
    this.origin.set(out, node);
    let extension: string | undefined;
    if (shape.preference) node.items = this.#preferred(node.items, shape);
    node.items.forEach((item, i) => {
      const inner = shape.item(i);
      if (inner === undefined) {
        out.push(plain(item));
        kept.push(item);
        return;
      }
      extension = inner.extension?.extension;
      const value = this.#value(item, inner, known || this.#known(item));
      if (value === SKIPPED) return;
      out.push(value);
      kept.push(item);
    });
    node.items = kept;
    if (extension === "http" || extension === "network") this.#checkTerminal(extension, out, node);
    return out;
  }

  /** Of a list in order of preference, takes the first entry that is implemented here. If none is, all stay, and are reported. */
  #preferred(items: Node[], shape: Shape): Node[] {
    const kind = shape.item(0)?.field(PREFERRED).shape?.extension?.extension;
    const named = items.map((item) => (item.kind === "map" ? item.get(PREFERRED) : undefined));
    const taken = named.findIndex((entry) => kind !== undefined && this.#resolver.has(kind, entry));
    if (taken < 0) return items;
    named.forEach((entry, i) => {
      if (i !== taken) this.#resolver.leaveOut(entry, i < taken);
    });
    return [items[taken]!];
  }

  /** Checks that the last filter of a chain is terminal, and no other. An empty chain is allowed, as in Envoy. */
  #checkTerminal(kind: string, refs: readonly unknown[], node: ListNode): void {
    const what = kind === "http" ? "HTTP filter" : "network filter";
    refs.forEach((ref, i) => {
      if (ref === undefined) return;
      const { package: packageName, name } = ref as { package: string; name: string };
      const found = this.#registry.packages.find(
        (p) => p.package === packageName && p.kind === kind,
      );
      const item = node.items[i]!;
      const place = (item.kind === "map" ? item.get("name") : undefined)?.place ?? item.place;
      if (found?.terminal === true && i < refs.length - 1)
        this.#report.unservable(place, `terminal filter "${name}" must be the last ${what}`);
      if (found?.terminal === false && i === refs.length - 1)
        this.#report.unservable(
          place,
          `"${name}" is not a terminal filter, and the last ${what} must be one`,
          lastHelp(kind),
        );
    });
  }

  #extension(schema: Schema, node: Node, root: Schema): unknown {
    const use = this.#resolver.use(schema.extension!, node);
    if (use === "skipped") return SKIPPED;
    if (use === undefined) {
      this.#refused.add(node);
      return undefined;
    }
    const ref: Record<string, unknown> = { name: use.name, package: use.package.package };
    this.origin.set(ref, node);
    // Other fields of the entry than name and config, if the schema of the place lists them.
    const entry = node as MapNode;
    const properties = schema.properties ?? {};
    for (const [key, field] of entry.entries) {
      if (ENTRY_FIELDS.has(key)) continue;
      const property = properties[key];
      if (property !== undefined)
        ref[key] = this.#value(field.value, shapeOf(property, root), this.#known(entry));
      else this.#notListed(entry, field, Object.keys(properties), this.#known(entry));
    }
    ref.config = this.#config(use.package.schema, use);
    return ref;
  }

  #config(schema: unknown, use: Use | RouteUse): unknown {
    if (use.config === undefined) return undefined;
    if (use.built !== undefined) return use.built;
    return this.part(schema as Schema, use.config) ?? {};
  }

  #routeConfig(key: string, place: Place, node: Node): unknown {
    const use = this.#resolver.routeUse(key, place, node);
    if (use === undefined) return undefined;
    const ref: Record<string, unknown> = { name: key, package: use.package?.package ?? "" };
    this.origin.set(ref, node);
    ref.config = use.package === undefined ? undefined : this.#config(use.package.routeSchema, use);
    if (use.disabled !== undefined) ref.disabled = use.disabled;
    return ref;
  }

  #duration(node: Node): unknown {
    if (node.kind === "list") return plain(node);
    const canonical =
      node.kind === "map" ? this.#normaliser.message("google.protobuf.Duration", node) : node;
    if (canonical.kind !== "scalar" || canonical.invalid) {
      this.#refused.add(node);
      return undefined;
    }
    const read = readDuration(canonical);
    if ("problem" in read) {
      this.#report.error(node.place, read.problem, read.help);
      this.#refused.add(node);
      return undefined;
    }
    return parseDuration(String(read.value));
  }

  /** Reads a scalar as the schema asks for; for Envoy's messages the descriptor has done so before. */
  #looseScalar(node: ScalarNode, shape: Shape): unknown {
    const { words } = shape;
    if (words !== undefined && typeof node.value === "string") {
      const upper = node.value.toUpperCase();
      const word = words.find((w) => w.toUpperCase() === upper);
      if (word !== undefined) node.value = word;
      return node.value;
    }
    const numeric = shape.isType("integer") || shape.isType("number");
    if (shape.isType("string")) {
      if (numeric || shape.isType("boolean") || typeof node.value === "string") return node.value;
      return this.#reading(node, readString(node));
    }
    if (numeric && typeof node.value === "string") return this.#reading(node, readFloat(node));
    if (shape.isType("boolean") && typeof node.value === "string" && !numeric)
      return this.#reading(node, readBool(node));
    return node.value;
  }

  #reading(node: ScalarNode, read: ReturnType<typeof readFloat>): unknown {
    if ("value" in read) {
      node.value = read.value;
      return read.value;
    }
    this.#report.error(node.place, read.problem, read.help);
    node.invalid = true;
    return undefined;
  }
}

/** The field that has the extension in each entry of a list in order of preference. */
const PREFERRED = "typed_extension_config";

/** Fields of an entry that the resolver reads, not the package. */
const ENTRY_FIELDS = new Set([
  "name",
  "typed_config",
  "config",
  "is_optional",
  "config_discovery",
  "package",
  "@type",
]);

function lastHelp(kind: string): string {
  return kind === "http"
    ? "end with envoy.filters.http.router"
    : "end with http_connection_manager or tcp_proxy";
}

interface Found {
  readonly node: Node;
  readonly parent: MapNode | undefined;
  readonly key: string | undefined;
}

function pointerParts(pointer: string): string[] {
  return pointer
    .split("/")
    .slice(1)
    .map((p) => p.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function step(node: Node, key: string): Node | undefined {
  if (node.kind === "map") return node.get(key);
  if (node.kind === "list") return node.items[Number(key)];
  return undefined;
}

function find(root: Node, pointer: string): Found | undefined {
  let found: Found = { node: root, parent: undefined, key: undefined };
  for (const key of pointerParts(pointer)) {
    const next = step(found.node, key);
    if (next === undefined) return undefined;
    const parent: MapNode | undefined = found.node.kind === "map" ? found.node : found.parent;
    const name: string | undefined = found.node.kind === "map" ? key : found.key;
    found = { node: next, parent, key: name };
  }
  return found;
}

function nearest(root: Node, pointer: string): Node {
  let node = root;
  for (const key of pointerParts(pointer)) {
    const next = step(node, key);
    if (next === undefined) break;
    node = next;
  }
  return node;
}
