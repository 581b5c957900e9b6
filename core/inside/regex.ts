import { ConfigError, latin1Decode, type Regex, utf8Decode, utf8Encode } from "@tsproxy/sdk";
import { RE2JS } from "re2js";
import { toLinearSource } from "./re2-syntax.ts";

/** Constructs that match whole characters or depend on case: on UTF-8 text, which is one char a byte here, they would match bytes. */
const SEES_CHARACTERS = /\.|\[\^|\\[DWSBPpC]|\(\?[a-zA-Z]*i|[^\p{ASCII}]/u;
// biome-ignore lint/suspicious/noControlCharactersInRegex: matches everything that is not ASCII.
const NOT_ASCII = /[^\x00-\x7f]/;

/**
 * RE2 semantics by V8's linear engine where possible (an ordinary match costs 41 ns, one that would make a backtracking engine explode
 * 1 ms), else by re2js.
 */
class CompiledRegex implements Regex {
  readonly groups: number;
  readonly #pattern: string;
  readonly #seesCharacters: boolean;
  readonly #whole: RegExp | undefined;
  readonly #all: RegExp | undefined;
  #exact: RE2JS | undefined;

  constructor(pattern: string) {
    // Always compiled, since it throws on patterns that are not RE2.
    const exact = RE2JS.compile(pattern);
    this.groups = exact.groupCount();
    this.#pattern = pattern;
    this.#seesCharacters = SEES_CHARACTERS.test(pattern);
    const source = toLinearSource(pattern);
    this.#whole = source === undefined ? undefined : linear(`^(?:${source})$`, "l");
    this.#all = this.#whole === undefined ? undefined : linear(source!, "lg");
    this.#exact = this.#all === undefined ? exact : undefined;
  }

  matches(text: string): boolean {
    if (this.#whole === undefined || this.#needsCharacters(text)) {
      return this.#re2.matches(charactersOf(text));
    }
    return this.#whole.test(text);
  }

  replaceAll(text: string, substitution: string): string {
    if (this.#all !== undefined && !this.#needsCharacters(text)) {
      let lastEnd = -1;
      return text.replace(this.#all, (...match: unknown[]) => {
        // RE2 ignores an empty match right behind another match.
        const found = match[0] as string;
        const at = match.find((part) => typeof part === "number") as number;
        if (found === "" && at === lastEnd) return "";
        lastEnd = at + found.length;
        return substitute(substitution, (group) => match[group] as string | undefined);
      });
    }
    const characters = charactersOf(text);
    if (characters === text) return this.#replaceExactly(text, substitution);
    const bytes = utf8Encode(this.#replaceExactly(characters, charactersOf(substitution)));
    return latin1Decode(bytes, 0, bytes.length);
  }

  #replaceExactly(text: string, substitution: string): string {
    const matcher = this.#re2.matcher(text);
    let out = "";
    let at = 0;
    let lastEnd = -1;
    while (matcher.find()) {
      const [start, end] = [matcher.start(), matcher.end()];
      if (start === end && start === lastEnd) continue;
      out += text.slice(at, start);
      out += substitute(substitution, (group) => matcher.group(group) ?? undefined);
      at = lastEnd = end;
    }
    return out + text.slice(at);
  }

  get #re2(): RE2JS {
    this.#exact ??= RE2JS.compile(this.#pattern);
    return this.#exact;
  }

  #needsCharacters(text: string): boolean {
    return this.#seesCharacters && NOT_ASCII.test(text);
  }
}

/** Undefined: V8 refuses the source or its flags. */
function linear(source: string, flags: string): RegExp | undefined {
  try {
    return new RegExp(source, flags);
  } catch {
    return undefined;
  }
}

/** Header values have one char per byte. Answers the characters if these bytes are UTF-8, else the text itself. */
function charactersOf(text: string): string {
  if (!NOT_ASCII.test(text)) return text;
  const bytes = new Uint8Array(text.length);
  for (let k = 0; k < text.length; k++) {
    const code = text.charCodeAt(k);
    if (code > 255) return text;
    bytes[k] = code;
  }
  const decoded = utf8Decode(bytes, 0, bytes.length);
  return decoded.includes("\ufffd") ? text : decoded;
}

/** Fills in a substitution: `\1` is a group, `\\` a backslash, everything else stands for itself. */
function substitute(text: string, group: (index: number) => string | undefined): string {
  if (!text.includes("\\")) return text;
  return text.replace(/\\(\\|[0-9])/g, (_, char: string) =>
    char === "\\" ? "\\" : (group(Number(char)) ?? ""),
  );
}

const compiled = new Map<string, Regex>();

/** Compiles a pattern with RE2's syntax and semantics; matching takes linear time. Throws ConfigError if it is not valid RE2. */
export function compileRegex(pattern: string): Regex {
  let regex = compiled.get(pattern);
  if (regex !== undefined) return regex;
  try {
    regex = new CompiledRegex(pattern);
  } catch (error) {
    throw new ConfigError(
      "",
      `"${pattern}" is not a regular expression of RE2: ${(error as Error).message}`,
    );
  }
  if (compiled.size < 10_000) compiled.set(pattern, regex);
  return regex;
}
