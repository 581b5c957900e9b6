import { ConfigError, latin1Decode, type SetupContext } from "@tsproxy/sdk";
import type { DataSource } from "./config.ts";

/** Reads what a config names, and notes which files that were: they may change. */
export class Sources {
  readonly files = new Set<string>();
  readonly #cx: SetupContext;

  constructor(cx: SetupContext) {
    this.#cx = cx;
  }

  /** Undefined: nothing is given. `path`: where it stands in the config. */
  text(source: DataSource | undefined, path: string): string | undefined {
    if (source === undefined) return undefined;
    const { filename, inline_string: text, inline_bytes: bytes } = source;
    if (filename !== undefined) return this.#file(filename, path, "utf8");
    if (text !== undefined) return text;
    if (bytes !== undefined) return latin1Decode(decode(bytes), 0, decode(bytes).length);
    throw new ConfigError(path, "give one of filename, inline_string and inline_bytes");
  }

  /** Base64 of what may be no text at all. */
  base64(source: DataSource, path: string): string {
    if (source.filename !== undefined) return this.#file(source.filename, path, "base64");
    if (source.inline_bytes !== undefined) return source.inline_bytes;
    throw new ConfigError(path, "give one of filename and inline_bytes");
  }

  /** Any bytes as base64: secrets that are no text. */
  base64OrText(source: DataSource, path: string): string {
    if (source.inline_string === undefined) return this.base64(source, path);
    return encode(source.inline_string);
  }

  /** The text of a file, whatever is in it. */
  read(filename: string, path: string): string {
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

const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/** Base64 that core has checked already. */
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

function encode(text: string): string {
  let out = "";
  for (let k = 0; k < text.length; k += 3) {
    const bytes = [0, 1, 2].map((n) => text.charCodeAt(k + n) & 255);
    const bits = (bytes[0]! << 16) | (bytes[1]! << 8) | bytes[2]!;
    for (let shift = 18; shift >= 0; shift -= 6) out += DIGITS[(bits >> shift) & 63];
  }
  return out;
}
