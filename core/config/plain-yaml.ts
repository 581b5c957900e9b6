import type { Place, Report } from "./diagnostic.ts";
import {
  childPlace,
  ListNode,
  MapNode,
  type Node,
  placeAt,
  plainNode,
  ScalarNode,
} from "./document.ts";

/** Thrown where only the whole parser can read the text, or the text is wrong. */
class NotPlain extends Error {}
const notPlain = new NotPlain();

// A key ends with a colon that a space or the end of the line follows.
const KEY = /(?:([A-Za-z_][\w./-]{0,200})|"([^"\\\n]{0,200})"|'([^'\n]{0,200})'):(?= |\n|$)/y;
const PLAIN =
  /(?:[A-Za-z0-9_./~+$^(\\]|-(?=[^\s]))(?:[^\n#: ]|:(?=[^\s])|(?<=[^ ])#| +(?=[^ #\n]))*/y;
/** A word between brackets, where a comma ends it. Doubtful characters are left to the whole parser. */
const WORD = /[A-Za-z0-9_./][\w./+-]*/y;
const DOUBLE = /"(?:[^"\\\n]|\\[\\"/bfnrt])*"/y;
const SINGLE = /'(?:[^'\n]|'')*'/y;
const REST = /(?: +(?:#[^\n]*)?)?(?=\n|$)/y;
const SPACES = / */y;
/** Characters of files that are left to the whole parser: control characters, other line breaks, surrogates. */
const ODD = /[^\P{Cc}\n]|\p{Cs}|[\u2028\u2029\ufeff\u{10000}-\u{10ffff}]/u;
const MAX_DEPTH = 60;

/**
 * Reads the plain YAML of which nearly all configs are made, in a tenth of the time of the whole parser: maps and lists by
 * indentation, words and quoted strings of one line, brackets of one line. Undefined: the text is more than that, or wrong, and
 * the caller parses it. Whatever this reads, it reads exactly as the whole parser does, offsets included.
 */
export function readPlainYaml(text: string, report: Report): Node | undefined {
  if (ODD.test(text)) return undefined;
  try {
    return new PlainYaml(text, report).read();
  } catch (error) {
    if (error !== notPlain) throw error;
    return undefined;
  }
}

/** Throws `notPlain` where it cannot go on. */
class PlainYaml {
  readonly #text: string;
  readonly #report: Report;
  /** One string for all equal keys. */
  readonly #keys = new Map<string, string>();
  /** The offset of what is read next, and its column; the column is -1 at the end of the text. */
  #at = 0;
  #column = 0;
  /** The offset behind what was read last. */
  #end = 0;

  constructor(text: string, report: Report) {
    this.#text = text;
    this.#report = report;
  }

  read(): Node {
    this.#nextLine(0);
    const node = this.#block({ offset: 0, path: "" }, 0);
    if (this.#column >= 0) throw notPlain;
    return node;
  }

  /** Moves to the first line that is neither empty nor a comment. `from`: the beginning of a line. */
  #nextLine(from: number): void {
    const text = this.#text;
    let start = from;
    for (;;) {
      if (start >= text.length) {
        this.#column = -1;
        return;
      }
      let at = start;
      while (text.charCodeAt(at) === 32) at++;
      const first = text[at];
      if (first !== undefined && first !== "\n" && first !== "#") {
        this.#at = at;
        this.#column = at - start;
        return;
      }
      const end = text.indexOf("\n", at);
      if (end < 0) start = text.length;
      else start = end + 1;
    }
  }

  /** Reads the list or the map that begins at `#at`. */
  #block(parent: Place, depth: number): Node {
    if (depth > MAX_DEPTH || this.#column < 0) throw notPlain;
    const place = placeAt(parent, this.#at);
    return this.#isDash(this.#at) ? this.#list(place, depth) : this.#map(place, depth);
  }

  #isDash(at: number): boolean {
    if (this.#text[at] !== "-") return false;
    const next = this.#text[at + 1];
    return next === " " || next === "\n" || next === undefined;
  }

  #map(place: Place, depth: number): MapNode {
    const map = new MapNode(place);
    const column = this.#column;
    do {
      const offset = this.#at;
      const key = this.#key(offset);
      if (key === undefined || map.has(key)) throw notPlain;
      const at = childPlace(place, offset, key);
      map.add(key, this.#after(KEY.lastIndex, at, column, true, depth), at, this.#report);
    } while (this.#column === column);
    if (this.#column > column) throw notPlain;
    return map;
  }

  #list(place: Place, depth: number): ListNode {
    const items: Node[] = [];
    const column = this.#column;
    do {
      const dash = this.#at;
      const at = this.#skip(dash + 1);
      const child = childPlace(place, at, items.length);
      const isNested = this.#isDash(at) || this.#key(at) !== undefined;
      if (isNested) {
        this.#at = at;
        this.#column = column + at - dash;
        items.push(this.#block(child, depth + 1));
      } else items.push(this.#after(dash + 1, child, column, false, depth));
    } while (this.#column === column && this.#isDash(this.#at));
    if (this.#column > column) throw notPlain;
    return new ListNode(place, items);
  }

  /** Reads what follows a colon or a dash: on its line, or below. `column`: that of the key or dash. */
  #after(from: number, parent: Place, column: number, isKey: boolean, depth: number): Node {
    if (this.#matches(REST, from)) {
      this.#nextLine(this.#end + 1);
      const isBelow =
        this.#column > column || (isKey && this.#column === column && this.#isDash(this.#at));
      if (!isBelow) throw notPlain;
      return this.#block(parent, depth + 1);
    }
    const at = this.#skip(from);
    const first = this.#text[at];
    const place = placeAt(parent, at);
    const node =
      first === "{" || first === "[" ? this.#flow(place, depth + 1) : this.#scalar(place, PLAIN);
    if (!this.#matches(REST, this.#end)) throw notPlain;
    this.#nextLine(this.#end + 1);
    // A line that is further in would go on with the word.
    if (this.#column > column) throw notPlain;
    return node;
  }

  /** Reads brackets that end on the same line; leaves `#end` behind them. */
  #flow(place: Place, depth: number): Node {
    if (depth > MAX_DEPTH) throw notPlain;
    const isMap = this.#text[place.offset] === "{";
    const close = isMap ? "}" : "]";
    const map = new MapNode(place);
    const items: Node[] = [];
    let at = this.#skip(place.offset + 1);
    if (this.#text[at] !== close)
      for (;;) {
        let child = childPlace(place, at, items.length);
        let key: string | undefined;
        if (isMap) {
          key = this.#key(at);
          if (key === undefined || map.has(key)) throw notPlain;
          child = childPlace(place, at, key);
          at = this.#skip(KEY.lastIndex);
        }
        const inner = placeAt(child, at);
        const first = this.#text[at];
        const node =
          first === "{" || first === "[" ? this.#flow(inner, depth + 1) : this.#scalar(inner, WORD);
        if (key === undefined) items.push(node);
        else map.add(key, node, child, this.#report);
        at = this.#skip(this.#end);
        if (this.#text[at] === close) break;
        if (this.#text[at] !== ",") throw notPlain;
        const next = this.#skip(at + 1);
        if (next === at + 1) throw notPlain;
        at = next;
      }
    this.#end = at + 1;
    return isMap ? map : new ListNode(place, items);
  }

  /** Reads a word or a quoted string; leaves `#end` behind it. */
  #scalar(place: Place, word: RegExp): ScalarNode {
    const at = place.offset;
    const first = this.#text[at];
    if (first === '"' || first === "'") {
      if (!this.#matches(first === '"' ? DOUBLE : SINGLE, at)) throw notPlain;
      const quoted = this.#text.slice(at, this.#end);
      const value =
        first === '"' ? (JSON.parse(quoted) as string) : quoted.slice(1, -1).replaceAll("''", "'");
      return new ScalarNode(place, value, JSON.stringify(value));
    }
    if (!this.#matches(word, at)) throw notPlain;
    return plainNode(this.#text.slice(at, this.#end), place);
  }

  /** The key at that offset; KEY.lastIndex is then behind its colon. Undefined: there is none. */
  #key(at: number): string | undefined {
    KEY.lastIndex = at;
    const found = KEY.exec(this.#text);
    if (found === null) return undefined;
    const key = found[1] ?? found[2] ?? found[3]!;
    let known = this.#keys.get(key);
    if (known === undefined) this.#keys.set(key, (known = key));
    return known;
  }

  #matches(pattern: RegExp, at: number): boolean {
    pattern.lastIndex = at;
    if (!pattern.test(this.#text)) return false;
    this.#end = pattern.lastIndex;
    return true;
  }

  #skip(from: number): number {
    SPACES.lastIndex = from;
    SPACES.test(this.#text);
    return SPACES.lastIndex;
  }
}
