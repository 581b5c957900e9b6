import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  parseAllDocuments,
  type Range,
  visit,
  type Node as YamlNode,
} from "yaml";
import type { Place, Report } from "./diagnostic.ts";
import {
  childPlace,
  invalidAt,
  isNull,
  ListNode,
  MapNode,
  type Node,
  placeAt,
  plainNode,
  ScalarNode,
} from "./document.ts";
import { parseJson } from "./json.ts";
import { indentOutdented, type Moved } from "./outdented.ts";
import { readPlainYaml } from "./plain-yaml.ts";

export type Format = "yaml" | "json";

/** Parses a config file. Undefined: errors have been reported. */
export function parseDocument(text: string, format: Format, report: Report): MapNode | undefined {
  const start: Place = { offset: 0, path: "" };
  const zero = text.indexOf("\0");
  if (zero >= 0) {
    report.error(
      { offset: zero, path: "" },
      "a zero byte, which no text has",
      "the file must be YAML or JSON in UTF-8",
    );
    return undefined;
  }
  // Of such bytes, decoding has made this character. Envoy takes them as they are: often they are those of a comment.
  const lost = text.indexOf("\uFFFD");
  if (lost >= 0)
    report.warn(
      { offset: lost, path: "" },
      'bytes that are not UTF-8 are read as "\uFFFD"',
      "save the file in UTF-8",
    );
  const root =
    format === "json" || isJson(text)
      ? parseJson(text, report)
      : (readPlainYaml(text, report) ?? parseYaml(text, report));
  if (root === undefined || report.failed) return undefined;
  if (root.kind === "map") return root;
  if (isNull(root)) report.error(start, "the file is empty");
  else report.error(root.place, "the top level must be a map of fields");
  return undefined;
}

/** JSON is YAML too. Our parser takes 0.5 s for 7 MB of it, the `yaml` package 6 s. */
function isJson(text: string): boolean {
  if (!/^\s*\{/.test(text)) return false;
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

// Aliases are expanded, so a few lines of them could grow beyond all memory; this limits the nodes that they make. The text of
// the file itself needs no limit.
const MAX_ALIASED = 200_000;
const MAX_DEPTH = 100;

/** Parses YAML with the `yaml` package, which reads all of the language. */
export function parseYaml(text: string, report: Report): Node | undefined {
  const start: Place = { offset: 0, path: "" };
  let documents: readonly Document.Parsed[];
  try {
    documents = yamlDocuments(text);
  } catch (error) {
    const deep = error instanceof RangeError;
    report.error(start, deep ? "nested too deeply" : `not YAML: ${(error as Error).message}`);
    return undefined;
  }
  const [document, ...others] = documents;
  // Only the first error: the others mostly follow from it.
  const broken = document?.errors[0];
  if (broken !== undefined) {
    const isDeep = broken.message.startsWith("Maximum call stack");
    report.error(
      { offset: broken.pos[0], path: "" },
      isDeep ? "nested too deeply" : `not YAML: ${sentence(broken.message)}`,
      text.includes("{%") ? "this looks like a template to be filled in first" : undefined,
    );
    return undefined;
  }
  if (document?.contents === undefined || document.contents === null) {
    report.error(start, "the file is empty");
    return undefined;
  }
  const further = others.find(
    ({ contents }) => contents !== null && contents.range[1] > contents.range[0],
  );
  if (further !== undefined)
    report.warn(
      { offset: further.range[0], path: "" },
      "a second YAML document begins here, which Envoy does not read either",
      'take the "---" away, or what follows it',
    );
  try {
    return new YamlReader(report).read(document.contents, start, 0);
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
    return undefined;
  }
}

/** Thrown to end the reading, after an error has been reported. */
class TooLarge extends Error {}

function sentence(message: string): string {
  const line = message.split("\n")[0]!.replace(/[.:]$/, "");
  return line.charAt(0).toLowerCase() + line.slice(1);
}

/**
 * Parses the documents of a file, of which the first is the config. The failsafe schema leaves scalars as they are written;
 * `plainScalar` reads them as Envoy does.
 */
export function yamlDocuments(text: string): readonly Document.Parsed[] {
  const documents = strictDocuments(text);
  if (!documents[0]?.errors.some(({ code }) => code === "BAD_INDENT" || code === "MISSING_CHAR"))
    return documents;
  const moved = indentOutdented(text);
  if (moved === undefined) return documents;
  const readAnew = strictDocuments(moved.text);
  for (const document of readAnew) moveBack(document, moved);
  return readAnew;
}

function strictDocuments(text: string): readonly Document.Parsed[] {
  const options = { schema: "failsafe", uniqueKeys: false, prettyErrors: false } as const;
  return parseAllDocuments(text, options) as Document.Parsed[];
}

/** Gives all that was read of the moved text its place in the text as it was. */
function moveBack(document: Document.Parsed, moved: Moved): void {
  document.range = rangeBefore(document.range, moved);
  for (const error of document.errors)
    error.pos = [moved.before(error.pos[0]), moved.before(error.pos[1])];
  visit(document, {
    Node(_, node) {
      if (node.range) node.range = rangeBefore(node.range, moved);
    },
  });
}

function rangeBefore([start, end, all]: Range, moved: Moved): Range {
  return [moved.before(start), moved.before(end), moved.before(all)];
}

/** Turns the nodes of the `yaml` package into a tree of ours; expands aliases. */
class YamlReader {
  readonly #report: Report;
  /** Nodes by anchor: an alias means the last anchor of that name before it. */
  readonly #anchors = new Map<string, YamlNode>();
  /** Nodes with anchors that are being read. */
  readonly #open = new Set<YamlNode>();
  #aliased = 0;
  #inAlias = false;

  constructor(report: Report) {
    this.#report = report;
  }

  read(node: YamlNode | null, parent: Place, depth: number): Node {
    const offset = node?.range?.[0] ?? parent.offset;
    const place = placeAt(parent, offset);
    if (this.#inAlias) this.#aliased++;
    if (this.#aliased > MAX_ALIASED || depth > MAX_DEPTH) {
      const what = depth > MAX_DEPTH ? "nested too deeply" : "aliases make the file too large";
      this.#report.error({ offset, path: "" }, what);
      throw new TooLarge();
    }
    if (isAlias(node)) {
      const target = this.#anchors.get(node.source);
      if (target !== undefined && !this.#open.has(target))
        return this.#alias(target, parent, depth);
      const why =
        target === undefined
          ? `no anchor "${node.source}" before this alias`
          : `the alias "${node.source}" stands in what it means`;
      this.#report.error(place, why);
      return invalidAt(place);
    }
    if (node?.anchor === undefined) return this.#content(node, place, depth);
    this.#anchors.set(node.anchor, node);
    this.#open.add(node);
    const read = this.#content(node, place, depth);
    this.#open.delete(node);
    return read;
  }

  #content(node: Exclude<YamlNode, Alias> | null, place: Place, depth: number): Node {
    if (isSeq(node)) {
      const items = node.items as (YamlNode | null)[];
      return new ListNode(
        place,
        items.map((item, i) =>
          this.read(item, childPlace(place, item?.range?.[0] ?? place.offset, i), depth + 1),
        ),
      );
    }
    if (isMap(node))
      return this.#map(node.items as { key: YamlNode; value: YamlNode | null }[], place, depth);
    if (isScalar(node)) return readScalar(node, place);
    return new ScalarNode(place, undefined, "null");
  }

  #alias(target: YamlNode, parent: Place, depth: number): Node {
    const outer = this.#inAlias;
    this.#inAlias = true;
    const node = this.read(target, parent, depth + 1);
    this.#inAlias = outer;
    return node;
  }

  #map(
    pairs: readonly { key: YamlNode; value: YamlNode | null }[],
    place: Place,
    depth: number,
  ): MapNode {
    const map = new MapNode(place);
    for (const pair of pairs) {
      const offset = pair.key?.range?.[0] ?? place.offset;
      const source = isAlias(pair.key) ? this.#anchors.get(pair.key.source) : pair.key;
      if (isScalar(pair.key) && pair.key.anchor !== undefined)
        this.#anchors.set(pair.key.anchor, pair.key);
      if (!isScalar(source)) {
        const template = isMap(source)
          ? '"{{ … }}" is a template to be filled in first'
          : undefined;
        this.#report.error({ offset, path: place.path }, "a key must be a word", template);
        continue;
      }
      const key = String(source.value ?? "");
      const at = childPlace(place, offset, key);
      const value = this.read(pair.value, placeAt(at, pair.value?.range?.[0] ?? offset), depth + 1);
      map.add(key, value, at, this.#report);
    }
    return map;
  }
}

function readScalar(
  node: { value: unknown; type?: string; source?: string; tag?: string },
  place: Place,
) {
  const text = String(node.value ?? "");
  if (node.type !== "PLAIN" || node.tag?.endsWith(":str") === true || node.tag === "!")
    return new ScalarNode(place, text, JSON.stringify(text));
  return plainNode(text, place);
}
