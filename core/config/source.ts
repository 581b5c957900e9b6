import type { ExtensionRef } from "@tsproxy/sdk";
import type { Refusal, RuntimeConfig } from "../protocol.ts";
import type { Diagnostic, Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";

/** Finds the place in the file for what packages say about a RuntimeConfig. */
export class Source {
  readonly #config: RuntimeConfig;
  readonly #root: Node;
  readonly #origin: ReadonlyMap<object, Node>;
  readonly #report: Report;

  constructor(
    config: RuntimeConfig,
    root: Node,
    origin: ReadonlyMap<object, Node>,
    report: Report,
  ) {
    this.#config = config;
    this.#root = root;
    this.#origin = origin;
    this.#report = report;
  }

  /** Turns a refusal by a package's `setup` into a finding at the user's line. */
  diagnostic(refusal: Pick<Refusal, "package" | "message" | "path" | "place">): Diagnostic {
    const walk = new Walk(this.#config, this.#root, this.#origin);
    const parts = refusal.place.split("/").slice(1);
    for (const part of parts) {
      const key = part.replaceAll("~1", "/").replaceAll("~0", "~");
      // `kind:name`, or `kind#2:name` for the second of that name, is an extension that the package before it in the path has set up.
      const [, nth = "1", name] = /^[a-z_]+(?:#(\d+))?:(.*)/s.exec(key) ?? [];
      if (name === undefined) walk.step(key);
      else walk.find(name, Number(nth));
    }
    const rest = walk.follow(refusal.path);
    const { offset, path } = walk.node.place;
    const tail = rest === "" || rest.startsWith("[") || path === "" ? rest : `.${rest}`;
    const place = { offset, path: path + tail };
    return this.#report.diagnostic(place, refusal.message);
  }
}

/**
 * Walks down the RuntimeConfig and the file's tree in parallel. In parts that the file does not have, such as defaults,
 * `node` stays at the last node above.
 */
class Walk {
  node: Node;
  #value: unknown;
  readonly #origin: ReadonlyMap<object, Node>;
  #lost = false;

  constructor(value: unknown, node: Node, origin: ReadonlyMap<object, Node>) {
    this.#value = value;
    this.node = node;
    this.#origin = origin;
  }

  step(key: string): void {
    const entries = entriesOf(this.#value);
    const parent = Array.isArray(entries) ? entries : this.#value;
    const at = Array.isArray(entries) ? indexIn(entries, key) : key;
    this.#value = isObject(parent) ? (parent as Record<string, unknown>)[at] : undefined;
    const known = isObject(this.#value) ? this.#origin.get(this.#value) : undefined;
    const child = known ?? (this.#lost ? undefined : childOf(this.node, at));
    if (child !== undefined) this.node = child;
    this.#lost = child === undefined;
  }

  /** Goes down to the config of the nth extension of that name; stays where it is if there is none. */
  find(name: string, nth: number): void {
    const ref = extensionsIn(this.#value, name)[nth - 1];
    const node = ref && this.#origin.get(ref);
    if (ref === undefined || node === undefined) return;
    this.node = node;
    const key = childOf(node, "typed_config") === undefined ? "config" : "typed_config";
    const known = isObject(ref.config) ? this.#origin.get(ref.config) : undefined;
    this.node = known ?? childOf(node, key) ?? node;
    this.#value = ref.config;
    this.#lost = false;
  }

  /** Follows a path of a ConfigError, `virtual_hosts[0].domains[1]`. Answers the part that the tree does not have. */
  follow(path: string): string {
    let rest = path.replace(/^\./, "");
    while (rest !== "") {
      const key = this.#keyAt(rest);
      if (key === undefined) return rest;
      this.step(key.name);
      if (this.#lost) return rest;
      rest = rest.slice(key.length).replace(/^\./, "");
    }
    return "";
  }

  // A key may have dots in it: the longest key that exists is taken.
  #keyAt(rest: string): { readonly name: string; readonly length: number } | undefined {
    const index = /^\[(\d+)\]/.exec(rest);
    if (index !== null) return { name: index[1]!, length: index[0].length };
    const quoted = /^\["([^"]*)"\]/.exec(rest);
    if (quoted !== null) return { name: quoted[1]!, length: quoted[0].length };
    const keys = isObject(this.#value) ? Object.keys(this.#value) : [];
    if (this.node.kind === "map") keys.push(...this.node.entries.keys());
    const fitting = keys.filter(
      (key) => rest === key || (rest.startsWith(key) && /[.[]/.test(rest[key.length]!)),
    );
    const name = fitting.sort((a, b) => b.length - a.length)[0] ?? /^[^.[]+/.exec(rest)?.[0];
    return name === undefined ? undefined : { name, length: name.length };
  }
}

/** The ExtensionRefs of that name anywhere within a value, except within each other. Per-route configs are no uses of their own. */
function extensionsIn(value: unknown, name: string): readonly ExtensionRef[] {
  if (!isObject(value)) return [];
  const ref = value as ExtensionRef;
  if (ref.name === name && typeof ref.package === "string" && "config" in ref) return [ref];
  return Object.entries(value).flatMap(([key, part]) =>
    key === "typed_per_filter_config" ? [] : extensionsIn(part, name),
  );
}

function childOf(node: Node, key: string): Node | undefined {
  if (node.kind === "map") return node.get(key);
  if (node.kind === "list") return node.items[Number(key)];
  return undefined;
}

/** A part of a package's config in a list goes by its index, or, as the context of one cluster does, by its name. */
function indexIn(entries: readonly unknown[], key: string): string {
  if (/^\d+$/.test(key) && Number(key) < entries.length) return key;
  return `${entries.findIndex((entry) => isObject(entry) && "name" in entry && entry.name === key)}`;
}

/** The entries of a LateList; any other value is answered as it is. */
function entriesOf(value: unknown): unknown {
  return isObject(value) && !Array.isArray(value) && "entries" in value ? value.entries : value;
}

function isObject(value: unknown): value is object {
  return typeof value === "object" && value !== null;
}
