import { utf8Encode } from "../bytes.ts";
import { CelError } from "./values.ts";

/** A parsed expression: `google.api.expr.v1alpha1.Expr` as JSON. Made by this parser or written in a config. */
export type Expr =
  | { readonly const_expr: Constant }
  | { readonly ident_expr: { readonly name: string } }
  | { readonly select_expr: Select }
  | { readonly call_expr: Call }
  | { readonly list_expr: { readonly elements?: readonly Expr[] } }
  | { readonly struct_expr: { readonly entries?: readonly Entry[] } };

export interface Select {
  readonly operand: Expr;
  readonly field: string;
  /** True: the expression is `has(operand.field)`. */
  readonly test_only?: boolean;
}
export interface Call {
  readonly target?: Expr;
  readonly function: string;
  readonly args?: readonly Expr[];
}
export interface Entry {
  readonly map_key: Expr;
  readonly value: Expr;
}
/** A literal: exactly one field is set. 64-bit numbers may be texts. */
export interface Constant {
  readonly null_value?: unknown;
  readonly bool_value?: boolean;
  readonly int64_value?: string | number;
  readonly uint64_value?: string | number;
  readonly double_value?: string | number;
  readonly string_value?: string;
  /** Base64 in a config; bytes from this parser. */
  readonly bytes_value?: string | Uint8Array;
}

/** Limits of cel-cpp, the library that Envoy uses. */
const MAX_LENGTH = 100_000;
const MAX_DEPTH = 250;

/** Parses an expression. A CelError says what is wrong and where, for the author of the config. */
export function parseCel(text: string): Expr | CelError {
  if (text.length > MAX_LENGTH) return new CelError(`is longer than ${MAX_LENGTH} characters`);
  try {
    return new Parser(text).all();
  } catch (error) {
    if (error instanceof SyntaxError) return new CelError(error.message);
    throw error;
  }
}

interface Token {
  readonly kind: "int" | "uint" | "double" | "string" | "bytes" | "name" | "sign" | "end";
  readonly text: string;
  readonly at: number;
  readonly bytes?: Uint8Array;
}

const SPACE = /(?:\s|\/\/[^\n]*)*/y;
const NUMBER =
  /0[xX]([0-9a-fA-F]+)([uU]?)|(?:[0-9]+\.[0-9]+|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+([uU]?)/y;
const NAME = /[A-Za-z_][A-Za-z0-9_]*/y;
const SIGN = /&&|\|\||==|!=|<=|>=|[-+*/%<>!?:.,()[\]{}]/y;
const QUOTE = /([rRbB]{0,2})("""|'''|"|')/y;

const RESERVED = new Set(
  "as break const continue else for function if import let loop package namespace return var void while".split(
    " ",
  ),
);

/** Binary operators by precedence, lowest first. */
const BINARY: readonly (readonly string[])[] = [
  ["||"],
  ["&&"],
  ["==", "!=", "<", "<=", ">", ">=", "in"],
  ["+", "-"],
  ["*", "/", "%"],
];
const COMPREHENSIONS = new Set(["all", "exists", "exists_one", "map", "filter"]);

/** Recursive descent over the grammar of CEL's specification. */
class Parser {
  readonly #text: string;
  #at = 0;
  #depth = 0;
  #token: Token;

  constructor(text: string) {
    this.#text = text;
    this.#token = this.#read();
  }

  all(): Expr {
    const expr = this.#expr();
    if (this.#token.kind !== "end") throw this.#unexpected();
    return expr;
  }

  #expr(): Expr {
    if (++this.#depth > MAX_DEPTH) throw new SyntaxError(`is nested more than ${MAX_DEPTH} deep`);
    const test = this.#binary(0);
    let expr = test;
    if (this.#takes("?")) {
      const then = this.#binary(0);
      this.#expect(":");
      expr = call("_?_:_", test, then, this.#expr());
    }
    this.#depth--;
    return expr;
  }

  #binary(level: number): Expr {
    const signs = BINARY[level];
    if (signs === undefined) return this.#unary();
    let left = this.#binary(level + 1);
    for (let k = 0; ; k++) {
      const { kind, text } = this.#token;
      const operates = kind === "sign" || (kind === "name" && text === "in");
      if (!operates || !signs.includes(text)) return left;
      if (k > MAX_DEPTH) throw new SyntaxError(`has more than ${MAX_DEPTH} operators in a row`);
      this.#next();
      left = call(text === "in" ? "@in" : `_${text}_`, left, this.#binary(level + 1));
    }
  }

  #unary(): Expr {
    const { kind, text, at } = this.#token;
    if (kind !== "sign" || (text !== "!" && text !== "-")) return this.#member();
    if (++this.#depth > MAX_DEPTH) throw new SyntaxError(`is nested more than ${MAX_DEPTH} deep`);
    this.#next();
    // The sign is part of the literal, since the least int, -2^63, has no positive counterpart to negate.
    const number = this.#token;
    const negative =
      text === "-" && number.at === at + 1 && (number.kind === "int" || number.kind === "double");
    if (negative) this.#token = { ...number, text: `-${number.text}` };
    const operand = negative ? this.#member() : this.#unary();
    this.#depth--;
    return negative ? operand : call(`${text}_`, operand);
  }

  #member(): Expr {
    let expr = this.#primary();
    for (let k = 0; k < MAX_DEPTH; k++) {
      if (this.#takes(".")) expr = this.#selected(expr);
      else if (this.#takes("[")) {
        const index = this.#expr();
        this.#expect("]");
        expr = call("_[_]", expr, index);
      } else return expr;
    }
    throw new SyntaxError(`is nested more than ${MAX_DEPTH} deep`);
  }

  #selected(operand: Expr): Expr {
    const field = this.#name();
    if (!this.#takes("(")) return { select_expr: { operand, field } };
    const args = this.#list(")");
    if (COMPREHENSIONS.has(field) && args.length >= 2)
      throw new SyntaxError(`${field}() is a comprehension, which is turned off here as in Envoy`);
    return { call_expr: { target: operand, function: field, args } };
  }

  #primary(): Expr {
    const { kind, text, bytes } = this.#token;
    switch (kind) {
      case "int":
        this.#next();
        return { const_expr: { int64_value: text } };
      case "uint":
        this.#next();
        return { const_expr: { uint64_value: text } };
      case "double":
        this.#next();
        return { const_expr: { double_value: text } };
      case "string":
        this.#next();
        return { const_expr: { string_value: text } };
      case "bytes":
        this.#next();
        return { const_expr: { bytes_value: bytes! } };
      case "name":
        return this.#named();
      default:
        return this.#bracketed();
    }
  }

  #named(): Expr {
    const name = this.#name();
    if (name === "true" || name === "false") return { const_expr: { bool_value: name === "true" } };
    if (name === "null") return { const_expr: { null_value: 0 } };
    if (!this.#takes("(")) return { ident_expr: { name } };
    const args = this.#list(")");
    if (name !== "has") return { call_expr: { function: name, args } };
    const [only, ...more] = args;
    if (only === undefined || more.length > 0 || !("select_expr" in only))
      throw new SyntaxError("has() takes one field: has(a.b)");
    return { select_expr: { ...only.select_expr, test_only: true } };
  }

  #bracketed(): Expr {
    if (this.#takes("(")) {
      const expr = this.#expr();
      this.#expect(")");
      return expr;
    }
    if (this.#takes("[")) return { list_expr: { elements: this.#list("]") } };
    if (this.#takes("{")) return { struct_expr: { entries: this.#entries() } };
    // A leading dot means the outermost scope, which is the only one here.
    if (this.#takes(".")) return this.#named();
    throw this.#unexpected();
  }

  #list(end: string): Expr[] {
    const list: Expr[] = [];
    while (!this.#takes(end)) {
      if (list.length > 0) this.#expect(",");
      if (end === "]" && this.#takes(end)) break;
      list.push(this.#expr());
    }
    return list;
  }

  #entries(): Entry[] {
    const entries: Entry[] = [];
    while (!this.#takes("}")) {
      if (entries.length > 0) this.#expect(",");
      if (this.#takes("}")) break;
      const map_key = this.#expr();
      this.#expect(":");
      entries.push({ map_key, value: this.#expr() });
    }
    return entries;
  }

  #name(): string {
    const { kind, text } = this.#token;
    if (kind !== "name" || text === "in" || RESERVED.has(text)) throw this.#unexpected();
    this.#next();
    return text;
  }

  #takes(sign: string): boolean {
    if (this.#token.kind !== "sign" || this.#token.text !== sign) return false;
    this.#next();
    return true;
  }

  #expect(sign: string): void {
    if (!this.#takes(sign)) throw this.#unexpected();
  }

  #unexpected(): SyntaxError {
    const { kind, text, at } = this.#token;
    return new SyntaxError(
      kind === "end" ? "ends too early" : `"${text.slice(0, 30)}" at ${at + 1} is not expected`,
    );
  }

  #next(): void {
    this.#token = this.#read();
  }

  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match !== null) this.#at = pattern.lastIndex;
    return match;
  }

  #read(): Token {
    this.#match(SPACE);
    const at = this.#at;
    if (at >= this.#text.length) return { kind: "end", text: "", at };
    const quote = this.#match(QUOTE);
    if (quote !== null) return this.#quoted(quote[1]!.toLowerCase(), quote[2]!, at);
    const number = this.#match(NUMBER);
    if (number !== null) return numberToken(number, at);
    const name = this.#match(NAME);
    if (name !== null) return { kind: "name", text: name[0], at };
    const sign = this.#match(SIGN);
    if (sign !== null) return { kind: "sign", text: sign[0], at };
    throw new SyntaxError(`"${this.#text.slice(at, at + 10)}" at ${at + 1} is not expected`);
  }

  /** `prefix`: r for raw, b for bytes. */
  #quoted(prefix: string, quote: string, at: number): Token {
    const raw = prefix.includes("r");
    let end = this.#at;
    while (end < this.#text.length && !this.#text.startsWith(quote, end)) {
      if (quote.length === 1 && this.#text[end] === "\n") break;
      end += this.#text[end] === "\\" ? 2 : 1;
    }
    if (!this.#text.startsWith(quote, end))
      throw new SyntaxError(`the text at ${at + 1} has no end`);
    const inner = this.#text.slice(this.#at, end);
    this.#at = end + quote.length;
    if (!prefix.includes("b"))
      return { kind: "string", text: raw ? inner : unescaped(inner, at), at };
    return { kind: "bytes", text: inner, at, bytes: raw ? utf8Encode(inner) : bytesOf(inner, at) };
  }
}

function call(name: string, ...args: Expr[]): Expr {
  return { call_expr: { function: name, args } };
}

function numberToken([text, hex, hexU, u]: RegExpExecArray, at: number): Token {
  if (hex !== undefined)
    return { kind: hexU === "" ? "int" : "uint", text: BigInt(`0x${hex}`).toString(), at };
  if (u === undefined) return { kind: "double", text, at };
  return u === "" ? { kind: "int", text, at } : { kind: "uint", text: text.slice(0, -1), at };
}

const ESCAPE =
  /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-3][0-7]{2})|([abfnrtv\\?"'`])|(.?))/gs;
const PLAIN: Readonly<Record<string, string>> = {
  a: "\x07",
  b: "\b",
  f: "\f",
  n: "\n",
  r: "\r",
  t: "\t",
  v: "\v",
};

function unescaped(text: string, at: number): string {
  return text.replace(ESCAPE, (_, x, u, long, octal, plain, wrong) => {
    if (wrong !== undefined)
      throw new SyntaxError(`the text at ${at + 1} has an escape that CEL does not know`);
    if (plain !== undefined) return PLAIN[plain] ?? plain;
    const code =
      octal === undefined ? Number.parseInt(x ?? u ?? long, 16) : Number.parseInt(octal, 8);
    if (code > 0x10ffff) throw new SyntaxError(`the text at ${at + 1} has an escape past U+10FFFF`);
    return String.fromCodePoint(code);
  });
}

/** Unescapes a bytes literal: `\xff` and `\377` are one byte each, all other characters become UTF-8. */
function bytesOf(text: string, at: number): Uint8Array {
  const bytes: number[] = [];
  let last = 0;
  for (const match of text.matchAll(ESCAPE)) {
    bytes.push(...utf8Encode(text.slice(last, match.index)));
    const [whole, x, , , octal] = match;
    last = match.index + whole.length;
    if (x === undefined && octal === undefined) bytes.push(...utf8Encode(unescaped(whole, at)));
    else bytes.push(x === undefined ? Number.parseInt(octal!, 8) : Number.parseInt(x, 16));
  }
  bytes.push(...utf8Encode(text.slice(last)));
  return Uint8Array.from(bytes);
}
