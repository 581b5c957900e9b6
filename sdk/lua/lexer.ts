/** Tokens of Lua 5.1 with what LuaJIT adds: `goto`, `\x41`, `\z`, hexadecimal fractions. Text is one char per byte. */
import { SyntaxError51 } from "./error.ts";
import { parseNumber } from "./number.ts";

export type TokenKind = "name" | "string" | "number" | "eof" | "symbol";

export interface Token {
  readonly kind: TokenKind;
  /** A name, a symbol or keyword, or the content of a string. */
  readonly text: string;
  readonly number: number;
  readonly line: number;
  /** The token as the source has it, for messages. */
  readonly raw: string;
}

const KEYWORDS = new Set(
  (
    "and break do else elseif end false for function goto if in local nil not or repeat return then true " +
    "until while"
  ).split(" "),
);
const SYMBOLS = [
  ["...", "=="],
  ["~=", "<=", ">=", "..", "::"],
].flat();
const ESCAPES: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
  "\\": "\\",
  '"': '"',
  "'": "'",
};

const isDigit = (char: string): boolean => char >= "0" && char <= "9";
const isNameStart = (char: string): boolean =>
  (char >= "a" && char <= "z") || (char >= "A" && char <= "Z") || char === "_" || char > "\x7f";
const isName = (char: string): boolean => isNameStart(char) || isDigit(char);

/** Reads one token after another. */
export class Lexer {
  readonly #source: string;
  readonly #chunk: string;
  #at = 0;
  #line = 1;

  /** `chunk`: the name that messages begin with. */
  constructor(source: string, chunk: string) {
    this.#source = source;
    this.#chunk = chunk;
    // Skips a first line that begins with `#`, such as `#!/usr/bin/lua`.
    if (source[0] === "#") this.#at = this.#lineEnd(0);
  }

  next(): Token {
    this.#skip();
    const from = this.#at;
    const line = this.#line;
    const char = this.#source[from];
    if (char === undefined) return token("eof", "<eof>", line, "<eof>");
    if (isNameStart(char)) {
      while (isName(this.#source[this.#at] ?? "")) this.#at++;
      const text = this.#source.slice(from, this.#at);
      return token(KEYWORDS.has(text) ? "symbol" : "name", text, line, text);
    }
    if (isDigit(char) || (char === "." && isDigit(this.#source[from + 1] ?? "")))
      return this.#number();
    if (char === '"' || char === "'") return this.#string(char);
    if (char === "[") {
      const level = this.#longLevel(from);
      if (level >= 0) {
        const text = this.#long(level, "string");
        return token("string", text, line, this.#source.slice(from, this.#at));
      }
    }
    const symbol = SYMBOLS.find((text) => this.#source.startsWith(text, from)) ?? char;
    this.#at += symbol.length;
    return token("symbol", symbol, line, symbol);
  }

  fail(message: string, near: string | undefined, line = this.#line): never {
    const end = near === undefined ? "" : ` near '${near}'`;
    throw new SyntaxError51(`${this.#chunk}:${line}: ${message}${end}`, near === "<eof>");
  }

  #lineEnd(from: number): number {
    const end = this.#source.indexOf("\n", from);
    return end < 0 ? this.#source.length : end;
  }

  /** Skips spaces and comments. */
  #skip(): void {
    for (;;) {
      const char = this.#source[this.#at];
      if (char === "\n" || char === "\r") this.#newLine(char);
      else if (char === " " || char === "\t" || char === "\v" || char === "\f") this.#at++;
      else if (char === "-" && this.#source[this.#at + 1] === "-") this.#comment();
      else return;
    }
  }

  /** Skips a line end; `\r\n` and `\n\r` are one. */
  #newLine(char: string): void {
    const after = this.#source[++this.#at];
    if ((after === "\n" || after === "\r") && after !== char) this.#at++;
    this.#line++;
  }

  #comment(): void {
    this.#at += 2;
    const level = this.#source[this.#at] === "[" ? this.#longLevel(this.#at) : -1;
    if (level >= 0) this.#long(level, "comment");
    else {
      while (!["\n", "\r", undefined].includes(this.#source[this.#at])) this.#at++;
    }
  }

  /** How many `=` the long bracket has that opens at `at`; -1: it is not a long bracket. */
  #longLevel(at: number): number {
    let k = at + 1;
    while (this.#source[k] === "=") k++;
    if (this.#source[k] === "[") return k - at - 1;
    if (k > at + 1) this.fail("invalid long string delimiter", this.#source.slice(at, k));
    return -1;
  }

  #long(level: number, what: string): string {
    this.#at += level + 2;
    const first = this.#source[this.#at];
    if (first === "\n" || first === "\r") this.#newLine(first);
    const close = `]${"=".repeat(level)}]`;
    let text = "";
    let from = this.#at;
    for (;;) {
      const char = this.#source[this.#at];
      if (char === undefined) this.fail(`unfinished long ${what}`, "<eof>");
      if (char === "]" && this.#source.startsWith(close, this.#at)) {
        text += this.#source.slice(from, this.#at);
        this.#at += close.length;
        return text;
      }
      if (char === "\n" || char === "\r") {
        text += `${this.#source.slice(from, this.#at)}\n`;
        this.#newLine(char);
        from = this.#at;
      } else this.#at++;
    }
  }

  #number(): Token {
    const from = this.#at;
    const hex = /^0[xX]/.test(this.#source.slice(from, from + 2));
    for (;;) {
      const char = this.#source[this.#at] ?? "";
      const before = this.#source[this.#at - 1] ?? "";
      const isSign =
        (char === "+" || char === "-") &&
        (hex ? before === "p" || before === "P" : before === "e" || before === "E");
      if (!isName(char) && char !== "." && !(isSign && this.#at > from)) break;
      this.#at++;
    }
    const raw = this.#source.slice(from, this.#at);
    const number = parseNumber(raw);
    if (number === undefined) this.fail("malformed number", raw);
    return { kind: "number", text: "<number>", number: number as number, line: this.#line, raw };
  }

  #string(quote: string): Token {
    const from = this.#at++;
    const line = this.#line;
    let text = "";
    for (;;) {
      const char = this.#source[this.#at];
      if (char === undefined) this.fail("unfinished string", "<eof>");
      if (char === "\n" || char === "\r")
        this.fail("unfinished string", this.#source.slice(from, this.#at));
      this.#at++;
      if (char === quote) break;
      text += char === "\\" ? this.#escape(from) : char;
    }
    return token("string", text, line, this.#source.slice(from, this.#at));
  }

  #escape(from: number): string {
    const char = this.#source[this.#at] ?? "";
    const known = ESCAPES[char];
    if (known !== undefined) {
      this.#at++;
      return known;
    }
    if (char === "\n" || char === "\r") {
      this.#newLine(char);
      return "\n";
    }
    if (char === "z") {
      this.#at++;
      for (;;) {
        const space = this.#source[this.#at];
        if (space === "\n" || space === "\r") this.#newLine(space);
        else if (space !== undefined && /[ \t\v\f]/.test(space)) this.#at++;
        else return "";
      }
    }
    const hex = /^x([0-9a-fA-F]{2})/.exec(this.#source.slice(this.#at, this.#at + 3));
    const decimal = /^\d{1,3}/.exec(this.#source.slice(this.#at, this.#at + 3));
    const code = hex ? Number.parseInt(hex[1]!, 16) : decimal ? Number(decimal[0]) : 256;
    if (code > 255) {
      if (char === "") this.fail("unfinished string", "<eof>");
      this.fail("invalid escape sequence", this.#source.slice(from, this.#at + 1));
    }
    this.#at += (hex ?? decimal)![0].length;
    return String.fromCharCode(code);
  }
}

function token(kind: TokenKind, text: string, line: number, raw: string): Token {
  return { kind, text, number: 0, line, raw };
}
