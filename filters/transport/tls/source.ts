import {
  ConfigError,
  latin1Decode,
  latin1Encode,
  type SetupContext,
  surroundings,
  utf8Encode,
} from "@tsproxy/sdk";
import type { DataSource } from "./config.ts";

/** Reads the data sources of a config and records their files in `files`, so that they can be watched. */
export class Sources {
  readonly files = new Set<string>();
  /** Names of the secrets that were read, by file. */
  readonly secrets = new Map<string, Set<string>>();
  readonly #cx: SetupContext;

  constructor(cx: SetupContext) {
    this.#cx = cx;
  }

  /** Reads a text; undefined if no source is given. `path`: of the source in the config, for errors. */
  text(source: DataSource | undefined, path: string): string | undefined {
    if (source === undefined) return undefined;
    const { filename, inline_string: text, inline_bytes: bytes } = source;
    const { environment_variable: variable } = source;
    if (filename !== undefined) return this.#file(filename, path, "utf8");
    if (text !== undefined) return text;
    if (bytes !== undefined) return latin1Decode(decode(bytes), 0, decode(bytes).length);
    if (variable !== undefined) return environment(variable, path);
    throw new ConfigError(
      path,
      "give one of filename, inline_string, inline_bytes and environment_variable",
    );
  }

  /** Reads binary data as base64, from a file or inline bytes. */
  base64(source: DataSource, path: string): string {
    if (source.filename !== undefined) return this.#file(source.filename, path, "base64");
    if (source.inline_bytes !== undefined) return source.inline_bytes;
    throw new ConfigError(path, "give one of filename and inline_bytes");
  }

  /** Reads data as base64 from any kind of source. */
  base64OrText(source: DataSource, path: string): string {
    const { inline_string: text, environment_variable: variable } = source;
    if (text !== undefined) return base64(latin1Encode(text));
    if (variable !== undefined) return base64(utf8Encode(environment(variable, path)));
    return this.base64(source, path);
  }

  bytes(source: DataSource, path: string): Uint8Array {
    return decode(this.base64(source, path));
  }

  /** Reads a file that has the secret `name`. */
  secretFile(filename: string, name: string, path: string): string {
    const names = this.secrets.get(filename) ?? new Set();
    this.secrets.set(filename, names.add(name));
    return this.#file(filename, path, "utf8");
  }

  #file(filename: string, path: string, encoding: "utf8" | "base64"): string {
    this.files.add(filename);
    try {
      return this.#cx.readFile(filename, encoding);
    } catch (error) {
      throw new ConfigError(`${path}.filename`, (error as Error).message);
    }
  }
}

function environment(variable: string, path: string): string {
  const text = surroundings.environment[variable];
  if (text !== undefined) return text;
  throw new ConfigError(path, `there is no environment variable "${variable}"`);
}

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Decodes base64, which core has validated. */
function decode(text: string): Uint8Array {
  const clean = text.replace(/=+$/, "").replaceAll("-", "+").replaceAll("_", "/");
  const bytes = new Uint8Array(Math.floor((clean.length * 3) / 4));
  let bits = 0;
  let held = 0;
  let at = 0;
  for (const digit of clean) {
    bits = (bits << 6) | DIGITS.indexOf(digit);
    held += 6;
    if (held < 8) continue;
    held -= 8;
    bytes[at++] = (bits >> held) & 255;
  }
  return bytes;
}

export function base64(bytes: Uint8Array): string {
  let out = "";
  for (let k = 0; k < bytes.length; k += 3) {
    const left = bytes.length - k;
    const bits = (bytes[k]! << 16) | ((bytes[k + 1] ?? 0) << 8) | (bytes[k + 2] ?? 0);
    for (let n = 0; n < 4; n++) out += n <= left ? DIGITS[(bits >> (18 - 6 * n)) & 63] : "=";
  }
  return out;
}
