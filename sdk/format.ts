// Hot path: a line or a header value for every request, test/bench/access-log.ts.
import type { LogEntry } from "./access-log.ts";
import { latin1Decode, latin1Encode, utf8Decode, utf8Encode } from "./bytes.ts";
import { commandOf, UNSUPPORTED, WITHOUT_QUERY } from "./format-commands.ts";
import { escaped, quote, textOfValue } from "./json-text.ts";
import { LineFormat } from "./line-format.ts";
import type { LineWriter } from "./line-writer.ts";

/**
 * What Envoy's substitution formats (`%REQ(:METHOD)% %DURATION%`) are filled from. A `LogEntry` is one, and so is an `HttpStream`
 * while it runs.
 */
export type FormatSource = Pick<LogEntry, "info" | "request" | "response"> & Partial<LogEntry>;

/** What a format is for, which decides how values are written. */
export interface FormatOptions {
  /**
   * `log` (default): text, header bytes read as UTF-8, `-` for a value that is missing. `header`: one char a byte, "" for a
   * value that is missing, no control character whatever the values hold.
   */
  readonly purpose?: "log" | "header";
  /** Header bytes that are no UTF-8 become lone surrogates, which JSON escapes; otherwise they become U+FFFD. */
  readonly bytes?: boolean;
  /** REQ_WITHOUT_QUERY is a command; Envoy has it only where `formatters` of the config list it. */
  readonly withoutQuery?: boolean;
  /** Printed for a value that is missing. */
  readonly missing?: string;
  /**
   * Called for a command that does not exist or is written wrongly, with the reason; if it returns, the command prints as
   * missing. Without it `compileFormat` throws a FormatError.
   */
  readonly onUnknown?: (message: string, command: string) => void;
  /** Called for a command of Envoy's that has no data here: it prints as missing. */
  readonly onUnsupported?: (command: string) => void;
}

/** A format that cannot be read; the message says what of it. */
export class FormatError extends Error {}

/** A compiled format of Envoy's language. */
export interface Format {
  format(source: FormatSource): string;
  /** Writes the same text as UTF-8, for a log. Absent: this format makes strings only. */
  readonly write?: ((source: FormatSource, line: LineWriter) => void) | undefined;
}

/** Parses a format once. `%%` is a percent sign. */
export function compileFormat(text: string, options: FormatOptions = {}): Format {
  const parts = parse(text, options);
  const format = new TextFormat(parts, options);
  if (options.purpose === "header") return format;
  const line = new LineFormat(options.missing ?? "-");
  addParts(parts, "text", line);
  line.end();
  return {
    format: (source) => format.format(source),
    write: (source, writer) => line.write(source, writer),
  };
}

/**
 * `json_format`: strings are formats and everything else stays as it is. A string that is one command keeps its value's type,
 * null when it is missing. Keys are sorted, as Envoy prints them; the line ends with a newline. `omitEmpty`: without keys,
 * entries of lists and maps that have no value.
 */
export function compileJsonFormat(
  tree: unknown,
  options: FormatOptions & { readonly omitEmpty?: boolean } = {},
): Format {
  const print = compileTree(tree, { ...options, bytes: true });
  const format = (source: FormatSource) =>
    `${print(source) || (Array.isArray(tree) ? "[]" : "{}")}\n`;
  // What is left out is known when it has been printed.
  if (options.omitEmpty === true) return { format };
  const line = new LineFormat("-");
  addTree(tree, { ...options, bytes: true }, line);
  line.addLiteral("\n");
  line.end();
  return { format, write: (source, writer) => line.write(source, writer) };
}

/** Envoy's line for every request when the config gives no format. */
export const DEFAULT_LOG_FORMAT =
  '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% ' +
  "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% " +
  '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"\n';

/** What a command of a format stands for; an object becomes JSON. */
export type FormatValue = string | number | boolean | object | undefined;
/** Reads one value; `undefined` if there is none. */
export interface Command {
  (source: FormatSource): FormatValue;
  /**
   * Writes the value, a text, without making a string of it; only chars that stand in JSON's quotes as they are. False: it cannot,
   * and what it has written is to be taken back.
   */
  write?: (source: FormatSource, line: LineWriter) => boolean;
}
type Part = string | Command;

class TextFormat implements Format {
  readonly #parts: readonly Part[];
  readonly #missing: string;
  readonly #header: boolean;

  constructor(parts: readonly Part[], options: FormatOptions) {
    this.#header = options.purpose === "header";
    this.#missing = options.missing ?? (this.#header ? "" : "-");
    this.#parts = parts;
  }

  format(source: FormatSource): string {
    const parts = this.#parts;
    let text = "";
    for (let k = 0; k < parts.length; k++) {
      const part = parts[k]!;
      if (typeof part === "string") {
        text += part;
        continue;
      }
      const value = part(source);
      text +=
        value === undefined
          ? this.#missing
          : typeof value === "object"
            ? JSON.stringify(value)
            : value;
    }
    // Metadata and names may hold any text; a header may not, and the data path must not throw.
    return this.#header && UNFIT.test(text) ? fit(text) : text;
  }
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what a header value may not hold (RFC 9110 §5.5).
const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f]/g;
// biome-ignore lint/suspicious/noControlCharactersInRegex: as above, and chars of more than one byte.
const UNFIT = /[\x00-\x08\x0a-\x1f\x7f\u0100-\uffff]/;

function fit(text: string): string {
  return text.replace(CONTROLS, " ").replace(/[\u0100-\uffff]+/g, bytesOf);
}

/** `%COMMAND(parameter):length%`; the parameter ends with the first `)` that a `%` or `:length%` follows. */
const COMMAND = /%(?:%|([A-Z0-9_]+)(?:\((.*?)\))?(?::([0-9]{1,9}))?%)/sy;

function parse(text: string, options: FormatOptions): Part[] {
  const header = options.purpose === "header";
  const parts: Part[] = [];
  let literal = "";
  const flush = () => {
    if (literal !== "") parts.push(header ? bytesOf(literal) : literal);
    literal = "";
  };
  for (let k = 0; k < text.length; ) {
    const percent = text.indexOf("%", k);
    literal += text.slice(k, percent < 0 ? text.length : percent);
    if (percent < 0) break;
    COMMAND.lastIndex = percent;
    const match = COMMAND.exec(text);
    if (match === null) {
      const near = text.slice(percent, percent + 20);
      unknown(`"${near}" is not a command; a percent sign is written %%`, near, options);
      literal += "%";
      k = percent + 1;
      continue;
    }
    k = COMMAND.lastIndex;
    if (match[1] === undefined) {
      literal += "%";
      continue;
    }
    flush();
    const length = match[3] === undefined ? undefined : Number(match[3]);
    parts.push(command(match[1], match[2], length, options));
  }
  flush();
  return parts;
}

function unknown(message: string, name: string, options: FormatOptions): void {
  if (options.onUnknown === undefined) throw new FormatError(message);
  options.onUnknown(message, name);
}

const missing: Command = () => undefined;

function command(
  name: string,
  parameter: string | undefined,
  length: number | undefined,
  options: FormatOptions,
): Command {
  const make = commandOf(name);
  if (name === "REQ_WITHOUT_QUERY" && options.withoutQuery !== true) {
    unknown(
      `%${name}% needs an entry of formatters with @type type.googleapis.com/${WITHOUT_QUERY}`,
      name,
      options,
    );
    return missing;
  }
  if (make === undefined) {
    if (UNSUPPORTED.test(name)) options.onUnsupported?.(name);
    else unknown(`%${name}% is not a command of access log formats`, name, options);
    return missing;
  }
  const text: FormatText =
    options.purpose === "header"
      ? { read: asIs, write: bytesOf, header: true }
      : { read: options.bytes === true ? textOrBytes : textOf, write: asIs };
  try {
    return make(parameter, length, text);
  } catch (error) {
    if (!(error instanceof Error)) throw error;
    unknown(`%${name}%: ${error.message}`, name, options);
    return missing;
  }
}

/** How header bytes and other text become the text of the format. */
export interface FormatText {
  /** True: of a header's value. */
  readonly header?: boolean;
  readonly read: (headerValue: string) => string;
  readonly write: (text: string) => string;
}

const asIs = (text: string): string => text;
// biome-ignore lint/suspicious/noControlCharactersInRegex: all of ASCII.
const ASCII = /^[\x00-\x7f]*$/;

function textOf(headerValue: string): string {
  if (ASCII.test(headerValue)) return headerValue;
  const bytes = latin1Encode(headerValue);
  return utf8Decode(bytes, 0, bytes.length);
}

/** For JSON: in a value that is not UTF-8, bytes above 0x7f become lone surrogates, by which `escaped` recognises them. */
function textOrBytes(headerValue: string): string {
  if (ASCII.test(headerValue)) return headerValue;
  const text = textOf(headerValue);
  if (!text.includes("\ufffd")) return text;
  return headerValue.replace(HIGH, (c) => String.fromCharCode(0xdc00 + c.charCodeAt(0)));
}
const HIGH = /[\x80-\xff]/g;

function bytesOf(text: string): string {
  if (ASCII.test(text)) return text;
  const bytes = utf8Encode(text);
  return latin1Decode(bytes, 0, bytes.length);
}

// ---- json_format

/** Prints a part of the tree as JSON; "" if it has no value and such are left out. */
type Printer = (source: FormatSource) => string;

function compileTree(
  tree: unknown,
  options: FormatOptions & { readonly omitEmpty?: boolean },
): Printer {
  const omitEmpty = options.omitEmpty === true;
  if (typeof tree === "string") return compileLeaf(tree, options);
  if (Array.isArray(tree)) {
    const items = tree.map((item) => compileTree(item, options));
    return (source) => {
      let text = "";
      for (let k = 0; k < items.length; k++) {
        const item = items[k]!(source);
        if (item !== "") text += text === "" ? item : `,${item}`;
      }
      return `[${text}]`;
    };
  }
  if (typeof tree === "object" && tree !== null) {
    const keys = Object.keys(tree).sort();
    const heads = keys.map((key) => `${JSON.stringify(key)}:`);
    const values = keys.map((key) => compileTree((tree as Record<string, unknown>)[key], options));
    return (source) => {
      let text = "";
      for (let k = 0; k < heads.length; k++) {
        const value = values[k]!(source);
        if (value !== "") text += text === "" ? heads[k]! + value : `,${heads[k]!}${value}`;
      }
      return omitEmpty && text === "" ? "" : `{${text}}`;
    };
  }
  const literal = omitEmpty && (tree ?? null) === null ? "" : JSON.stringify(tree ?? null);
  return () => literal;
}

function compileLeaf(
  format: string,
  options: FormatOptions & { readonly omitEmpty?: boolean },
): Printer {
  const omitEmpty = options.omitEmpty === true;
  const parts = parse(format, options);
  const only = parts[0];
  if (parts.length === 1 && typeof only === "function") {
    const none = omitEmpty ? "" : "null";
    return (source) => {
      const value = only(source);
      if (typeof value === "string") return quote(value);
      if (typeof value === "number") return Number.isFinite(value) ? String(value) : none;
      return value === undefined ? none : JSON.stringify(value);
    };
  }
  if (parts.every((part) => typeof part === "string")) {
    const literal = JSON.stringify(parts.join(""));
    return () => literal;
  }
  const missing = omitEmpty ? "" : "-";
  const printed = parts.map((part) => (typeof part === "string" ? escaped(part) : part));
  return (source) => {
    let text = "";
    for (let k = 0; k < printed.length; k++) {
      const part = printed[k]!;
      text += typeof part === "string" ? part : escaped(textOfValue(part(source), missing));
    }
    return `"${text}"`;
  };
}

// ---- lines as bytes

function addParts(parts: readonly Part[], place: "text" | "quoted", line: LineFormat): void {
  for (const part of parts)
    if (typeof part !== "string") line.addCommand(part, place);
    else line.addLiteral(place === "quoted" ? escaped(part) : part);
}

/** Adds what `compileTree` prints, without `omitEmpty`. */
function addTree(tree: unknown, options: FormatOptions, line: LineFormat): void {
  if (typeof tree === "string") addLeaf(parse(tree, options), line);
  else if (Array.isArray(tree)) {
    line.addLiteral("[");
    tree.forEach((item, k) => {
      if (k > 0) line.addLiteral(",");
      addTree(item, options, line);
    });
    line.addLiteral("]");
  } else if (typeof tree === "object" && tree !== null) {
    line.addLiteral("{");
    Object.keys(tree)
      .sort()
      .forEach((key, k) => {
        line.addLiteral(`${k > 0 ? "," : ""}${JSON.stringify(key)}:`);
        addTree((tree as Record<string, unknown>)[key], options, line);
      });
    line.addLiteral("}");
  } else line.addLiteral(JSON.stringify(tree ?? null));
}

function addLeaf(parts: readonly Part[], line: LineFormat): void {
  const only = parts[0];
  if (parts.length === 1 && typeof only === "function") {
    line.addCommand(only, "json");
    return;
  }
  line.addLiteral('"');
  addParts(parts, "quoted", line);
  line.addLiteral('"');
}
