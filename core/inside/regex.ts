import { ConfigError, type Regex } from "@tsproxy/sdk";
import { RE2JS } from "re2js";

/**
 * Constructs that V8's linear engine reads differently from RE2, or not at all. Patterns with one of them go to re2js, which
 * is slower and exact.
 */
const RE2_ONLY = /\(\?[imsU-]|\(\?P|\\[AzQECpPaxGZsSv]|\[\[:|\\[0-7]|\\u|\\k|\(\?<|\(\?[=!]/;

class LinearRegex implements Regex {
  readonly #whole: RegExp;
  readonly #all: RegExp;

  constructor(pattern: string) {
    this.#whole = new RegExp(`^(?:${pattern})$`, "l");
    this.#all = new RegExp(pattern, "lg");
  }
  matches(text: string): boolean {
    return this.#whole.test(text);
  }
  replaceAll(text: string, substitution: string): string {
    return text.replace(this.#all, toJavaScript(substitution));
  }
}

class Re2Regex implements Regex {
  readonly #pattern: ReturnType<typeof RE2JS.compile>;

  constructor(pattern: string) {
    this.#pattern = RE2JS.compile(pattern);
  }
  matches(text: string): boolean {
    return this.#pattern.matches(text);
  }
  replaceAll(text: string, substitution: string): string {
    return this.#pattern.matcher(text).replaceAll(toJavaScript(substitution));
  }
}

/** `\1` becomes `$1`, `\\` a backslash, `$` stands for itself. */
function toJavaScript(substitution: string): string {
  return substitution
    .replaceAll("$", "$$$$")
    .replace(/\\(\\|\d)/g, (_, c: string) => (c === "\\" ? "\\" : c === "0" ? "$&" : `$${c}`));
}

const compiled = new Map<string, Regex>();

/** RE2 semantics in linear time. Throws ConfigError for what RE2 has no syntax for. */
export function compileRegex(pattern: string): Regex {
  let regex = compiled.get(pattern);
  if (regex !== undefined) return regex;
  if (!RE2_ONLY.test(pattern)) {
    try {
      regex = new LinearRegex(pattern);
    } catch {
      regex = undefined;
    }
  }
  if (regex === undefined) {
    try {
      regex = new Re2Regex(pattern);
    } catch (error) {
      throw new ConfigError(
        "",
        `"${pattern}" is not a regular expression of RE2: ${(error as Error).message}`,
      );
    }
  }
  if (compiled.size < 10_000) compiled.set(pattern, regex);
  return regex;
}
