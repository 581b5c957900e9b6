import type { Place, Report } from "./diagnostic.ts";
import { childPlace, ListNode, MapNode, type Node, ScalarNode } from "./document.ts";

const MAX_DEPTH = 100;

/** JSON with positions (`JSON.parse` has none). Undefined: what is wrong stands in the report. */
export function parseJson(text: string, report: Report): Node | undefined {
  const start: Place = { offset: 0, path: "" };
  if (text.trim() === "") {
    report.error(start, "the file is empty");
    return undefined;
  }
  try {
    return new JsonReader(text, report).document();
  } catch (error) {
    if (!(error instanceof JsonError)) throw error;
    report.error({ offset: error.offset, path: "" }, `not JSON: ${error.message}`);
    return undefined;
  }
}

class JsonError extends Error {
  readonly offset: number;

  constructor(offset: number, message: string) {
    super(message);
    this.offset = offset;
  }
}

const STRING = /"(?:[^"\\]|\\.)*"/y;
const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?/y;
const WORD = /true|false|null/y;
const SPACE = /[ \t\r\n]*/y;

class JsonReader {
  readonly #text: string;
  readonly #report: Report;
  #at = 0;

  constructor(text: string, report: Report) {
    this.#text = text.charCodeAt(0) === 0xfeff ? ` ${text.slice(1)}` : text;
    this.#report = report;
  }

  document(): Node {
    const root = this.#value({ offset: 0, path: "" }, 0);
    this.#take(SPACE);
    if (this.#at < this.#text.length) throw this.#unexpected("the end");
    return root;
  }

  #value(parent: Place, depth: number): Node {
    this.#take(SPACE);
    const place: Place = { offset: this.#at, path: parent.path };
    if (depth > MAX_DEPTH) throw new JsonError(this.#at, "nested too deeply");
    const next = this.#text[this.#at];
    if (next === "{") return this.#object(place, depth);
    if (next === "[") return this.#array(place, depth);
    const string = this.#take(STRING);
    if (string !== undefined) return new ScalarNode(place, unquoted(string, place.offset), string);
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
      this.#take(SPACE);
      const offset = this.#at;
      const text = this.#take(STRING);
      if (text === undefined) throw this.#unexpected("a key in double quotes");
      const key = unquoted(text, offset);
      const at = childPlace(place, offset, key);
      if (!this.#punctuation(":")) throw this.#unexpected('":"');
      if (map.has(key)) this.#report.warn(at, `"${key}" is written twice; this one counts`);
      map.entries.delete(key);
      map.set(key, this.#value(at, depth + 1), at);
    } while (this.#punctuation(","));
    if (!this.#punctuation("}")) throw this.#unexpected('"," or "}"');
    return map;
  }

  #array(place: Place, depth: number): ListNode {
    const list = new ListNode(place);
    this.#at++;
    if (this.#punctuation("]")) return list;
    do list.items.push(this.#value(childPlace(place, this.#at, list.items.length), depth + 1));
    while (this.#punctuation(","));
    if (!this.#punctuation("]")) throw this.#unexpected('"," or "]"');
    return list;
  }

  #punctuation(mark: string): boolean {
    this.#take(SPACE);
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
    );
  }
}

function unquoted(text: string, offset: number): string {
  try {
    return JSON.parse(text) as string;
  } catch {
    throw new JsonError(offset, "a control character or an unknown escape in a string");
  }
}
