/** The library `string`. */
import {
  type Args,
  integerArgument,
  library,
  numberArgument,
  optionalInteger,
  optionalText,
  textArgument,
} from "./arguments.ts";
import { argumentError, libraryError } from "./error.ts";
import { madeText, spend } from "./meter.ts";
import { formatA, formatE, formatF, formatG, numberText } from "./number.ts";
import { isPlain, Matcher } from "./pattern.ts";
import {
  callable,
  index,
  type LuaFunction,
  one,
  rawText,
  TEXT_MAX,
  toText,
  truth,
} from "./runtime.ts";
import { LuaTable } from "./table.ts";

/** Most codes that `string.byte` returns. */
const CODES_MAX = 7000;

export function textLibrary(): LuaTable {
  return library({
    len: (...args) => textArgument(args, 1, "len").length,
    lower: (...args) => fold(textArgument(args, 1, "lower"), false),
    upper: (...args) => fold(textArgument(args, 1, "upper"), true),
    byte: textByte,
    char: (...args) => {
      let text = "";
      for (let k = 1; k <= args.length; k++) {
        const code = integerArgument(args, k, "char");
        if (code < 0 || code > 255) throw argumentError(k, "char", "invalid value");
        text += String.fromCharCode(code);
      }
      return text;
    },
    sub: (...args) => {
      const text = textArgument(args, 1, "sub");
      const [from, to] = range(
        text,
        integerArgument(args, 2, "sub"),
        optionalInteger(args, 3, "sub", -1),
      );
      return text.slice(from, to);
    },
    rep: (...args) => {
      const text = textArgument(args, 1, "rep");
      const count = integerArgument(args, 2, "rep");
      const between = optionalText(args, 3, "rep", "");
      if (count <= 0) return "";
      const size = (text.length + between.length) * count;
      if (size > TEXT_MAX) throw libraryError("resulting string too large");
      madeText(size);
      return between === "" ? text.repeat(count) : (text + between).repeat(count - 1) + text;
    },
    reverse: (...args) => {
      const text = textArgument(args, 1, "reverse");
      spend(text.length >> 2);
      madeText(text.length);
      let reversed = "";
      for (let k = text.length - 1; k >= 0; k--) reversed += text[k];
      return reversed;
    },
    format,
    find: (...args) => find(args, "find", true),
    match: (...args) => find(args, "match", false),
    gmatch,
    gsub,
    dump: () => {
      throw libraryError("unable to dump given function");
    },
  });
}

/** `upper` or `lower`, of ASCII only, as in the C locale. */
function fold(text: string, isUpper: boolean): string {
  spend(text.length >> 4);
  madeText(text.length);
  return isUpper
    ? text.replace(/[a-z]+/g, (part) => part.toUpperCase())
    : text.replace(/[A-Z]+/g, (part) => part.toLowerCase());
}

/** Offsets of a range that counts from 1, or from the end where it is negative. */
function range(text: string, first: number, last: number): [from: number, to: number] {
  const size = text.length;
  const from = first < 0 ? Math.max(size + first, 0) : Math.max(first - 1, 0);
  const to = last < 0 ? size + last + 1 : Math.min(last, size);
  return from >= to ? [0, 0] : [from, to];
}

function textByte(...args: unknown[]): unknown {
  const text = textArgument(args, 1, "byte");
  const first = optionalInteger(args, 2, "byte", 1);
  const [from, to] = range(text, first, optionalInteger(args, 3, "byte", first));
  if (to - from === 1) return text.charCodeAt(from);
  if (to - from > CODES_MAX) throw libraryError("string slice too long");
  const codes: number[] = [];
  for (let k = from; k < to; k++) codes.push(text.charCodeAt(k));
  return codes;
}

// ---- patterns

function find(args: Args, name: string, wantsPlace: boolean): unknown {
  const text = textArgument(args, 1, name);
  const pattern = textArgument(args, 2, name);
  let at = optionalInteger(args, 3, name, 1);
  at = at > 0 ? at - 1 : at < 0 ? Math.max(0, text.length + at) : 0;
  if (at > text.length) {
    // As LuaJIT built with Lua 5.2's behaviour; Lua 5.1 would search at the end.
    return undefined;
  }
  if (wantsPlace && (truth(args[3]) || isPlain(pattern))) {
    spend((text.length - at) >> 6);
    const found = text.indexOf(pattern, at);
    return found < 0 ? undefined : [found + 1, found + pattern.length];
  }
  const matcher = new Matcher(text, pattern);
  const isAnchored = pattern[0] === "^";
  for (; at <= text.length; at++) {
    const end = matcher.match(at, isAnchored ? 1 : 0);
    if (end >= 0) {
      if (!wantsPlace) {
        const captures = matcher.all(at, end);
        return captures.length === 1 ? captures[0] : captures;
      }
      return matcher.captures === 0 ? [at + 1, end] : [at + 1, end, ...matcher.all(at, end)];
    }
    if (isAnchored) break;
  }
  return undefined;
}

function gmatch(...args: unknown[]): unknown {
  const matcher = new Matcher(textArgument(args, 1, "gmatch"), textArgument(args, 2, "gmatch"));
  let at = 0;
  return function lua_gmatch_next(): unknown {
    for (; at <= matcher.text.length; at++) {
      const end = matcher.match(at, 0);
      if (end < 0) continue;
      const captures = matcher.all(at, end);
      at = end === at ? at + 1 : end;
      return captures.length === 1 ? captures[0] : captures;
    }
    return undefined;
  };
}

function gsub(...args: unknown[]): unknown {
  const text = textArgument(args, 1, "gsub");
  const pattern = textArgument(args, 2, "gsub");
  const by = args[2];
  const isReplacement =
    typeof by === "string" ||
    typeof by === "number" ||
    typeof by === "function" ||
    by instanceof LuaTable;
  if (!isReplacement) throw argumentError(3, "gsub", "string/function/table expected");
  const isAnchored = pattern[0] === "^";
  const most = optionalInteger(args, 4, "gsub", text.length + 1);
  const matcher = new Matcher(text, pattern);
  const replacement = typeof by === "number" ? numberText(by) : by;
  let result = "";
  let at = 0;
  let count = 0;
  while (count < most) {
    const end = matcher.match(at, isAnchored ? 1 : 0);
    if (end >= 0) {
      count++;
      result += replaced(matcher, replacement, at, end);
      if (result.length > TEXT_MAX) throw libraryError("resulting string too large");
    }
    if (end > at) at = end;
    else if (at < text.length) result += text[at++];
    else {
      at++;
      break;
    }
    if (isAnchored) break;
  }
  if (at < text.length) result += text.slice(at);
  madeText(result.length);
  return [result, count];
}

function replaced(matcher: Matcher, by: unknown, at: number, end: number): string {
  if (typeof by === "string") return expanded(matcher, by, at, end);
  const value =
    by instanceof LuaTable
      ? index(by, matcher.capture(0, at, end))
      : one(callable(by)(...matcher.all(at, end)));
  if (!truth(value)) return matcher.text.slice(at, end);
  if (typeof value === "string") return value;
  if (typeof value === "number") return numberText(value);
  throw libraryError(`invalid replacement value (a ${rawText(value).split(":")[0]})`);
}

function expanded(matcher: Matcher, by: string, at: number, end: number): string {
  if (!by.includes("%")) return by;
  let result = "";
  for (let k = 0; k < by.length; k++) {
    const char = by[k]!;
    if (char !== "%") {
      result += char;
      continue;
    }
    const next = by[++k] ?? "";
    if (next === "0") result += matcher.text.slice(at, end);
    else if (next >= "1" && next <= "9") {
      const capture = matcher.capture(Number(next) - 1, at, end);
      result += typeof capture === "number" ? numberText(capture) : capture;
    } else if (next === "%") result += "%";
    else throw libraryError("invalid use of '%' in replacement string");
  }
  return result;
}

// ---- format

/** Cost of one directive, in turns of a loop; a number of 300 digits takes many times as long. */
const FORMAT_COST = 500;
const DIRECTIVE = /^([-+ #0]*)(\d*)(?:\.(\d*))?(.?)/s;

const format: LuaFunction = (...args) => {
  const form = textArgument(args, 1, "format");
  let result = "";
  let k = 1;
  for (let at = 0; ; ) {
    const percent = form.indexOf("%", at);
    if (percent < 0) {
      madeText(result.length);
      return result + form.slice(at);
    }
    result += form.slice(at, percent);
    if (form[percent + 1] === "%") {
      result += "%";
      at = percent + 2;
      continue;
    }
    const [all, flags = "", width = "", precision, letter = ""] = DIRECTIVE.exec(
      form.slice(percent + 1, percent + 40),
    )!;
    if (width.length > 2 || (precision ?? "").length > 2 || flags.length > 5)
      throw libraryError(`invalid option '%${all}' to 'format'`);
    at = percent + 1 + all.length;
    const digits = precision === undefined ? undefined : Number(precision);
    const spec = { flags, width: Number(width), digits, letter, all };
    spend(FORMAT_COST);
    result += formatted(args, ++k, spec);
    if (result.length > TEXT_MAX) throw libraryError("resulting string too large");
  }
};

interface Spec {
  readonly flags: string;
  readonly width: number;
  readonly digits: number | undefined;
  readonly letter: string;
  readonly all: string;
}

function formatted(args: Args, k: number, spec: Spec): string {
  const { letter, digits, flags } = spec;
  switch (letter) {
    case "d":
    case "i":
      return padNumber(decimal(truncated(args, k), digits), spec, digits === undefined);
    case "u":
      return padNumber(
        decimal(BigInt.asUintN(64, truncated(args, k)), digits),
        spec,
        digits === undefined,
      );
    case "c":
      return pad(String.fromCharCode(integerArgument(args, k, "format") & 255), spec);
    case "o":
    case "x":
    case "X": {
      const value = BigInt.asUintN(64, truncated(args, k));
      let text = value.toString(letter === "o" ? 8 : 16).padStart(digits ?? 1, "0");
      if (flags.includes("#") && value !== 0n) text = (letter === "o" ? "0" : "0x") + text;
      if (letter === "X") text = text.toUpperCase();
      return padNumber(text, { ...spec, flags: flags.replace(/[+ ]/g, "") }, digits === undefined);
    }
    case "e":
    case "E":
    case "f":
    case "F":
    case "g":
    case "G":
    case "a":
    case "A": {
      const value = numberArgument(args, k, "format");
      const places = digits ?? 6;
      const kind = letter.toLowerCase();
      let text =
        kind === "e"
          ? formatE(value, places)
          : kind === "f"
            ? formatF(value, places)
            : kind === "g"
              ? formatG(value, places, flags.includes("#"))
              : formatA(value);
      if (letter !== kind) text = text.toUpperCase();
      return padNumber(text, spec, Number.isFinite(value));
    }
    case "q":
      return quoted(textArgument(args, k, "format"));
    case "s": {
      if (k > args.length) throw argumentError(k, "format", "no value");
      const text = toText(args[k - 1]);
      return pad(digits === undefined ? text : text.slice(0, digits), spec);
    }
  }
  throw libraryError(`invalid option '%${spec.all}' to 'format'`);
}

function truncated(args: Args, k: number): bigint {
  const value = numberArgument(args, k, "format");
  return Number.isFinite(value) ? BigInt(Math.trunc(value)) : -(2n ** 63n);
}

function decimal(value: bigint, digits: number | undefined): string {
  const size = (value < 0n ? -value : value).toString().padStart(digits ?? 1, "0");
  const text = digits === 0 && value === 0n ? "" : size;
  return value < 0n ? `-${text}` : text;
}

/** Adds the sign that flags ask for, then pads to the width; zeros go between the sign and the digits. */
function padNumber(text: string, spec: Spec, mayZero: boolean): string {
  const { flags, width } = spec;
  let sign = "";
  let digits = text;
  if (text[0] === "-") {
    sign = "-";
    digits = text.slice(1);
  } else if (flags.includes("+")) sign = "+";
  else if (flags.includes(" ")) sign = " ";
  if (flags.includes("0") && !flags.includes("-") && mayZero) {
    const prefix = /^0[xX]/.exec(digits)?.[0] ?? "";
    const rest = digits.slice(prefix.length);
    return sign + prefix + rest.padStart(width - sign.length - prefix.length, "0");
  }
  return pad(sign + digits, spec);
}

const pad = (text: string, { flags, width }: Spec): string =>
  flags.includes("-") ? text.padEnd(width) : text.padStart(width);

function quoted(text: string): string {
  const escaped = text.replace(/["\\\n\r\0]/g, (char) =>
    char === "\r" ? "\\r" : char === "\0" ? "\\0" : `\\${char}`,
  );
  return `"${escaped}"`;
}
