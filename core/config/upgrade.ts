import {
  Document,
  isMap,
  isScalar,
  isSeq,
  Pair,
  Scalar,
  YAMLMap,
  YAMLSeq,
  type Node as YamlNode,
} from "yaml";
import { descriptor } from "./descriptor.ts";
import { type Diagnostic, Report } from "./diagnostic.ts";
import { isMissing, isNull, type Node, plain, plainScalar, type ScalarNode } from "./document.ts";
import { type ConfigText, formatOf } from "./load.ts";
import { Normaliser } from "./normalise.ts";
import { parseDocument, yamlDocuments } from "./parse.ts";
import { Registry } from "./registry.ts";
import { eraOf, isEnvoyName, Rewriter } from "./rewrite.ts";

export interface Upgraded {
  /** The file in v3, with its comments; undefined: it cannot be read. */
  readonly text: string | undefined;
  readonly from: "v2" | "v3";
  /** What has no place in v3, or is wrong. */
  readonly errors: readonly Diagnostic[];
}

/**
 * Rewrites a config with types and fields of v3, whatever packages here implement of them. A value that is wrong stays as it was, and
 * a file that needs no change stays so byte for byte.
 */
export function upgrade(input: ConfigText & { readonly file: string }): Upgraded {
  const report = new Report(input.file, input.text, { strict: false });
  const format = formatOf(input.file, report);
  const root = format && parseDocument(input.text, format, report);
  if (root === undefined) return { text: undefined, from: "v3", errors: report.errors };
  const from = eraOf(root);
  const messages = descriptor();
  const rewriter = new Rewriter(from, messages, new Registry([]), report);
  const normaliser = new Normaliser(messages, rewriter, report, {
    resolved: false,
    allowUnknown: false,
  });
  const before = new Writer(input.text).write(root);
  normaliser.message("envoy.config.bootstrap.v3.Bootstrap", root);
  // The short form of tsproxy needs no upgrade, and which package it means is not asked here.
  for (const [value, { entry }] of normaliser.loose)
    if (entry !== undefined && !isEnvoyName(entry.string("name"))) normaliser.loose.delete(value);
  normaliser.reportLoose();
  const after = new Writer(input.text).write(root);
  const changed = () =>
    format === "json" ? `${JSON.stringify(plain(root, true), undefined, 2)}\n` : after;
  const text = after === before ? input.text : changed();
  return { text, from, errors: report.errors };
}

/** Comments and blank lines around a YAML node. */
interface Around {
  commentBefore?: string | null;
  comment?: string | null;
  spaceBefore?: boolean;
}

/** Writes a tree as YAML. What comes from the file keeps its form and comments, wherever it stands now. */
class Writer {
  readonly #source: Document.Parsed;
  /** Nodes of the file by their offsets: keys of maps, and values. A map begins where its first key does. */
  readonly #pairs = new Map<number, Pair<YamlNode, YamlNode | null>>();
  readonly #values = new Map<number, YamlNode>();
  /** Nodes whose comments have been written, since a node that has become several keeps them once. */
  readonly #written = new Set<YamlNode>();

  constructor(text: string) {
    this.#source = yamlDocuments(text)[0]!;
    this.#index(this.#source.contents);
  }

  write(root: Node): string {
    const document = new Document(undefined, { schema: "failsafe" });
    document.contents = this.#node(root) as never;
    document.commentBefore = this.#source.commentBefore;
    document.comment = this.#source.comment;
    return document.toString({ lineWidth: 0, flowCollectionPadding: true });
  }

  #index(node: unknown): void {
    if (isScalar(node) || isMap(node) || isSeq(node)) {
      if (node.range) this.#values.set(node.range[0], node);
    }
    if (isSeq(node)) for (const item of node.items) this.#index(item);
    if (!isMap(node)) return;
    for (const pair of node.items as Pair<YamlNode, YamlNode | null>[]) {
      if (pair.key.range) this.#pairs.set(pair.key.range[0], pair);
      this.#index(pair.value);
    }
  }

  #node(node: Node): YamlNode {
    if (node.kind === "scalar" && node.was !== undefined) return this.#node(node.was);
    const before = this.#values.get(node.place.offset);
    if (node.kind === "scalar") return this.#scalar(node, isScalar(before) ? before : undefined);
    if (node.kind === "list") {
      const list = new YAMLSeq();
      list.items = node.items.map((item) => this.#node(item));
      return this.#around(list, isSeq(before) ? before : undefined);
    }
    const map = new YAMLMap();
    for (const [key, { place, value }] of node.entries) {
      if (isNull(value) || isMissing(value)) continue;
      const before = this.#pairs.get(place.offset);
      const name = this.#around(scalarOf(key), before?.key);
      if (before?.value && !this.#stands(before.value, value))
        this.#keepComment(name, before.value);
      map.items.push(new Pair(name, this.#node(value)));
    }
    return this.#around(map, isMap(before) ? before : undefined);
  }

  /** True if `node`, or a part of it, comes from that node of the file. */
  #stands(before: YamlNode, node: Node): boolean {
    if (this.#values.get(node.place.offset) === before) return true;
    if (node.kind === "list") return node.items.some((item) => this.#stands(before, item));
    if (node.kind === "scalar") return false;
    return [...node.entries.values()].some(({ value }) => this.#stands(before, value));
  }

  /** Moves the comments of a value that is gone to its key. */
  #keepComment(key: Scalar, gone: YamlNode): void {
    if (this.#written.has(gone)) return;
    this.#written.add(gone);
    const { commentBefore, comment } = gone as Around;
    const all = [key.commentBefore, commentBefore, comment].filter((text) => text);
    if (all.length > 0) key.commentBefore = all.join("\n");
  }

  #scalar(node: ScalarNode, before: Scalar | undefined): Scalar {
    // Keeps the written form, unless the value has changed.
    const isKept = !node.isRenamed && before !== undefined && textOf(before) === node.text;
    const own = isKept ? before : undefined;
    if (own === undefined) return this.#around(scalarOf(node.json ?? node.value ?? ""), before);
    const kept = new Scalar(own.value);
    if (own.type !== undefined) kept.type = own.type;
    return this.#around(kept, own);
  }

  /** Gives a node the comments and layout of the one in the file; only once. */
  #around<T extends YamlNode>(node: T, before: YamlNode | undefined): T {
    if (before === undefined || this.#written.has(before)) return node;
    this.#written.add(before);
    const { commentBefore, comment, spaceBefore } = before as Around;
    Object.assign(node, { commentBefore, comment, spaceBefore });
    if ("flow" in before && before.flow !== undefined) Object.assign(node, { flow: before.flow });
    return node;
  }
}

function textOf(node: Scalar): string {
  const text = String(node.value ?? "");
  return node.type === "PLAIN" ? text : JSON.stringify(text);
}

/** A word that Envoy would read as something else is quoted: `on`, `12`. */
function scalarOf(value: string | number | boolean): Scalar {
  const node = new Scalar(String(value));
  if (typeof value === "string" && plainScalar(value) !== value) node.type = "QUOTE_DOUBLE";
  return node;
}
