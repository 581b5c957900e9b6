import type { Place, Report } from "./diagnostic.ts";
import { childPlace, ListNode, MapNode, type Node, placeAt, ScalarNode } from "./document.ts";
import { LARGE_CHARS, LONG_LISTS, NEEDS_READING, Unread } from "./unread.ts";

const MAX_DEPTH = 100;

/**
 * Parses JSON with positions, which `JSON.parse` does not have. Undefined: an error has been reported. From `large` chars on, the
 * entries of long lists stay unread.
 */
export function parseJson(text: string, report: Report, large = LARGE_CHARS): Node | undefined {
  const start: Place = { offset: 0, path: "" };
  if (text.trim() === "") {
    report.error(start, "the file is empty");
    return undefined;
  }
  try {
    return new JsonReader(text, report, text.length >= large).document();
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    report.error({ offset: error.offset, path: "" }, `not JSON: ${error.message}`, error.help);
    return undefined;
  }
}

class JsonError extends Error {
  readonly offset: number;
  /** How to mend it. */
  readonly help: string | undefined;

  constructor(offset: number, message: string, help?: string) {
    super(message);
    this.offset = offset;
    this.help = help;
  }
}

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const WORD = /true|false|null/y;

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const OPEN_MAP = 0x7b;
const CLOSE_MAP = 0x7d;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;

/** A JSON parser that makes nodes with places. */
class JsonReader {
  readonly #text: string;
  readonly #report: Report;
  readonly #isLarge: boolean;
  readonly #names = new Map<string, string>();
  #at = 0;

  constructor(text: string, report: Report, isLarge: boolean) {
    this.#text = text.charCodeAt(0) === 0xfeff ? ` ${text.slice(1)}` : text;
    this.#report = report;
    this.#isLarge = isLarge;
  }

  document(): Node {
    const root = this.#value({ offset: 0, path: "" }, 0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#unexpected("the end");
    return root;
  }

  /** `isLong`: if it is a list, its entries may stay unread. */
  #value(parent: Place, depth: number, isLong = false): Node {
    this.#space();
    const place = placeAt(parent, this.#at);
    if (depth > MAX_DEPTH) throw new JsonError(this.#at, "nested too deeply");
    switch (this.#text[this.#at]) {
      case "{":
        return this.#object(place, depth);
      case "[":
        return this.#array(place, depth, isLong);
      case '"': {
        const value = this.#string();
        return new ScalarNode(place, value, this.#text.slice(place.offset, this.#at));
      }
    }
    const number = this.#take(NUMBER);
    if (number !== undefined) {
      const value = Number(number);
      const exact = !Number.isInteger(value) || Number.isSafeInteger(value);
      return new ScalarNode(place, exact ? value : number, number);
    }
    const word = this.#take(WORD);
    if (word === undefined) throw this.#unexpected("a value");
    return new ScalarNode(place, word === "null" ? undefined : word === "true", word);
  }

  #object(place: Place, depth: number): MapNode {
    const map = new MapNode(place);
    this.#at++;
    if (this.#punctuation("}")) return map;
    do {
      this.#space();
      const offset = this.#at;
      if (this.#text[offset] !== '"') throw this.#unexpected("a key in double quotes");
      const key = this.#interned(this.#string());
      const at = childPlace(place, offset, key);
      if (!this.#punctuation(":")) throw this.#unexpected('":"');
      const isLong = this.#isLarge && LONG_LISTS.has(key);
      map.add(key, this.#value(at, depth + 1, isLong), at, this.#report);
    } while (this.#punctuation(","));
    if (!this.#punctuation("}")) throw this.#unexpected('"," or "}"');
    return map;
  }

  #array(place: Place, depth: number, isLong: boolean): ListNode {
    const list = new ListNode(place);
    this.#at++;
    if (this.#punctuation("]")) return list;
    do {
      this.#space();
      const at = childPlace(place, this.#at, list.items.length);
      const unread = isLong ? this.#unread(at, depth + 1) : undefined;
      list.items.push(unread ?? this.#value(at, depth + 1));
    } while (this.#punctuation(","));
    if (!this.#punctuation("]")) throw this.#unexpected('"," or "]"');
    return list;
  }

  /** Passes a map without making nodes of what is in it. Undefined: it has to be read. */
  #unread(parent: Place, depth: number): MapNode | undefined {
    this.#space();
    const from = this.#at;
    if (this.#text[from] !== "{") return undefined;
    const fields = this.#pass(MAX_DEPTH - depth);
    const to = this.#at;
    const text = fields < 0 ? "" : this.#text.slice(from, to);
    const value = text === "" || NEEDS_READING.test(text) ? undefined : parsed(text);
    if (value === undefined) {
      this.#at = from;
      return undefined;
    }
    const map = new MapNode(placeAt(parent, from));
    map.unread = new Unread(value, fields, () => {
      this.#at = from;
      return this.#object(map.place, depth).entries;
    });
    return map;
  }

  /** Goes behind the map that begins here. Answers the number of colons in it; -1: it has no end, or is deeper than `most`. */
  #pass(most: number): number {
    let depth = 0;
    let colons = 0;
    for (;;) {
      switch (this.#text.charCodeAt(this.#at++)) {
        case QUOTE:
          this.#passString();
          break;
        case COLON:
          colons++;
          break;
        case OPEN_MAP:
        case OPEN_LIST:
          if (++depth > most) return -1;
          break;
        case CLOSE_MAP:
        case CLOSE_LIST:
          if (--depth === 0) return colons;
          break;
        default:
          if (this.#at > this.#text.length) return -1;
      }
    }
  }

  #passString(): void {
    const text = this.#text;
    for (let at = this.#at; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code === BACKSLASH) at++;
      else if (code === QUOTE) {
        this.#at = at + 1;
        return;
      }
    }
    this.#at = text.length;
  }

  /** Reads a string, from its first quote to behind the last. */
  #string(): string {
    const text = this.#text;
    const from = this.#at;
    let escapes = false;
    let to = from + 1;
    for (; to < text.length; to++) {
      const code = text.charCodeAt(to);
      if (code === QUOTE) break;
      if (code < 0x20) throw new JsonError(from, "a control character in a string");
      if (code !== BACKSLASH) continue;
      escapes = true;
      to++;
    }
    if (to >= text.length) throw this.#unexpected("a string with an end");
    this.#at = to + 1;
    return escapes ? unquoted(text.slice(from, to + 1), from) : text.slice(from + 1, to);
  }

  /** Answers one string for all equal names: a large file has the same ones a hundred thousand times. */
  #interned(name: string): string {
    const known = this.#names.get(name);
    if (known !== undefined) return known;
    this.#names.set(name, name);
    return name;
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }
  #punctuation(mark: string): boolean {
    this.#space();
    if (this.#text[this.#at] !== mark) return false;
    this.#at++;
    return true;
  }
  #take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }
  #unexpected(wanted: string): JsonError {
    const found = this.#text[this.#at];
    return new JsonError(
      this.#at,
      `${found === undefined ? "the end" : JSON.stringify(found)} where ${wanted} should be`,
      this.#help(found),
    );
  }
  #help(found: string | undefined): string | undefined {
    const isAfterComma = this.#text.slice(0, this.#at).trimEnd().endsWith(",");
    if ((found === "}" || found === "]") && isAfterComma) return "take the comma before it away";
    if (found === "/" || found === "#") return "JSON has no comments";
    return found === "'" ? "JSON has double quotes only" : undefined;
  }
}

function parsed(text: string): object | undefined {
  try {
    return JSON.parse(text) as object;
  } catch {
    return undefined;
  }
}

function unquoted(text: string, offset: number): string {
  try {
    return JSON.parse(text) as string;
  } catch {
    throw new JsonError(offset, "an unknown escape in a string");
  }
}
