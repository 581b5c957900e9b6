import { ConfigError, type Regex, type SetupContext } from "./extension.ts";
import { type Static, Type, TypedExtension } from "./schema.ts";
import { wireText } from "./wire-text.ts";

/** Config of the extension `envoy.path.match.uri_template.uri_template_matcher`. */
export const UriTemplateMatch = TypedExtension({
  "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig": Type.Object({
    path_template: Type.String({ minLength: 1, maxLength: 256 }),
  }),
});

export type UriTemplateMatch = Static<typeof UriTemplateMatch>;

/** Characters of a path segment (RFC 3986 §3.3). */
const SEGMENT = "a-zA-Z0-9\\-._~%!$&'()*+,;:@=";
const ONE = `[${SEGMENT}]+`;
const MANY = `[${SEGMENT}/]*`;
const LITERAL = new RegExp(`^[${SEGMENT}]+$`);
const MOST_VARIABLES = 5;
const LONGEST_NAME = 16;

/**
 * Envoy's URI template, such as `/a/{x}/{y=b/*}/**.jpg`. `*` matches one segment, `**` any characters, also slashes or none;
 * `{x}` means `{x=*}`. Literals may stand directly around a variable, and in the last segment after an operator. As in Envoy, a star
 * that does not begin its segment repeats what is before it: `{v=x*}` matches `x` and `xx`, not `xy`.
 */
export class UriTemplate {
  /** Names of the variables, in the order of their capture groups. */
  readonly names: readonly string[];
  /** The regular expression, with a capture group for each variable. */
  readonly pattern: string;
  readonly #regex: Regex;

  constructor(text: string, path: string, cx: SetupContext) {
    const parser = new Parser(text, path);
    this.pattern = parser.pattern;
    this.names = parser.names;
    this.#regex = cx.regex(this.pattern);
  }

  /** `path` must have no query. */
  matches(path: string): boolean {
    return this.#regex.matches(path);
  }

  /** Compiles a rewrite such as `/new/{x}`, where a variable stands for what it has matched. */
  compileRewrite(text: string, path: string, cx: SetupContext): (path: string) => string {
    const whole = cx.regex(`^${this.pattern}$`);
    const substitution = this.#substitution(text, path);
    return (before) => whole.replaceAll(before, substitution);
  }

  #substitution(text: string, path: string): string {
    if (!text.startsWith("/")) throw new ConfigError(path, `"${text}" does not begin with a slash`);
    if (text.includes("//")) throw new ConfigError(path, `"${text}" has two slashes in a row`);
    let out = "";
    for (const part of text.split(/(\{[^{}]*\})/)) {
      if (!part.startsWith("{")) {
        if (/[*{}\\]/.test(part)) {
          throw new ConfigError(path, `"${part}" has more than literals and {variables}`);
        }
        out += wireText(part, path);
        continue;
      }
      const at = this.names.indexOf(part.slice(1, -1));
      if (at < 0) {
        const known = this.names.length === 0 ? "none" : this.names.join(", ");
        throw new ConfigError(path, `path_template has no variable ${part}; it has ${known}`);
      }
      out += `\\${at + 1}`;
    }
    return out;
  }
}

class Parser {
  pattern = "";
  readonly names: string[] = [];
  readonly #text: string;
  readonly #path: string;
  #sawMany = false;

  constructor(text: string, path: string) {
    this.#text = text;
    this.#path = path;
    if (!/^\/[!-~]*$/.test(text)) this.#fail("it has to begin with a slash and to have no spaces");
    const segments = text.slice(1).split(/\/(?![^{]*\})/);
    segments.forEach((segment, k) => {
      const last = k === segments.length - 1;
      this.pattern += `/${segment === "" && last ? "" : this.#segment(segment, last)}`;
    });
  }

  /** Parses one segment: an operator or a literal, or a variable between literals. Only in the last one may a literal follow an operator. */
  #segment(segment: string, last: boolean): string {
    const [operator = ""] = /^\*\*?/.exec(segment) ?? [];
    if (operator !== "") {
      const rest = segment.slice(operator.length);
      if (rest !== "" && !last) this.#fail(`"${rest}" follows an operator in mid-path`);
      if (rest.startsWith("*")) this.#fail("nothing matches three stars in a row");
      return this.#operator(operator) + this.#around(rest);
    }
    const [, before, variable, after] = /^([^{}]*)\{([^{}]*)\}([^{}]*)$/.exec(segment) ?? [];
    if (variable === undefined) return this.#literal(segment);
    return this.#around(before!) + this.#variable(variable) + this.#around(after!);
  }

  #around(literal: string): string {
    return literal === "" ? "" : this.#literal(literal);
  }

  #operator(operator: string): string {
    if (this.#sawMany) this.#fail("nothing that varies may follow **");
    this.#sawMany = operator === "**";
    return operator === "**" ? MANY : ONE;
  }

  #variable(text: string): string {
    const equals = text.indexOf("=");
    const name = equals < 0 ? text : text.slice(0, equals);
    if (!/^[a-zA-Z][a-zA-Z0-9_]*$/.test(name)) this.#fail(`"${name}" is not a name of a variable`);
    if (name.length > LONGEST_NAME)
      this.#fail(`"${name}" has more than ${LONGEST_NAME} characters`);
    if (this.names.includes(name)) this.#fail(`the variable "${name}" stands there twice`);
    this.names.push(name);
    if (this.names.length > MOST_VARIABLES) this.#fail(`more than ${MOST_VARIABLES} variables`);
    if (equals < 0) return `(${this.#operator("*")})`;
    const parts = text.slice(equals + 1).split("/");
    const inner = parts.map((part) => {
      if (/^\*\*?$/.test(part)) return this.#operator(part);
      if (part.startsWith("*")) this.#fail(`"${part}" has an operator and more`);
      return this.#literal(part);
    });
    return `(${inner.join("/")})`;
  }

  #literal(text: string): string {
    if (!LITERAL.test(text)) this.#fail(`"${text}" is not a literal`);
    if (text.includes("**")) this.#fail(`nothing matches the stars of "${text}"`);
    return text.replace(/[$().+]/g, "\\$&");
  }

  #fail(why: string): never {
    throw new ConfigError(this.#path, `"${this.#text}" is not a URI template: ${why}`);
  }
}
