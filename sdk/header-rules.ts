import { ConfigError } from "./extension.ts";
import { compileFormat, type Format, type FormatSource } from "./format.ts";
import { nameOf } from "./header-match.ts";
import { HeaderLine, type HeaderMap, type HeaderName, RequestHeaders } from "./headers.ts";
import { Enum, type Static, Type } from "./schema.ts";

/** Envoy's `core.v3.HeaderValueOption`. */
export const HeaderValueOption = Type.Object({
  header: Type.Object({
    key: Type.String({ minLength: 1 }),
    value: Type.String({ default: "" }),
    /** Accepted, and without effect: Envoy's header rules use `value` alone. */
    raw_value: Type.Optional(Type.String()),
  }),
  append_action: Enum(
    [
      "APPEND_IF_EXISTS_OR_ADD",
      "ADD_IF_ABSENT",
      "OVERWRITE_IF_EXISTS_OR_ADD",
      "OVERWRITE_IF_EXISTS",
    ],
    { default: "APPEND_IF_EXISTS_OR_ADD" },
  ),
  /** Envoy's older word for the choice between appending and overwriting. */
  append: Type.Optional(Type.Boolean()),
  keep_empty_value: Type.Boolean({ default: false }),
});

/** The four lists that routes, virtual hosts, weighted clusters and the whole table may have. */
export const headerRules = {
  request_headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
  request_headers_to_remove: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
  response_headers_to_add: Type.Array(HeaderValueOption, { default: [] }),
  response_headers_to_remove: Type.Array(Type.String({ minLength: 1 }), { default: [] }),
};
const HeaderRulesConfig = Type.Object(headerRules);
/** What `headerRules` of a schema gives: headers to add and to remove, for requests and responses. */
export type HeaderRulesConfig = Static<typeof HeaderRulesConfig>;
export type HeaderValueOption = Static<typeof HeaderValueOption>;

/** The part of a request head that a rule with a `:` name sets. */
type Pseudo = ":path" | ":method" | ":authority";

interface Rule {
  /** Undefined: a pseudo header. */
  readonly name: HeaderName | undefined;
  readonly pseudo: Pseudo | undefined;
  readonly action: HeaderValueOption["append_action"];
  /** The whole line, made once, where the value has no commands. */
  readonly line: HeaderLine | undefined;
  readonly value: Format | undefined;
  readonly keepEmpty: boolean;
}

/**
 * What one level of the config (a route, its virtual host, the table) adds to heads of one direction and removes from them. As in
 * Envoy, a level first removes headers. Then it formats all its values, from the head as it is by then. Then it overwrites
 * headers, and last it appends, whatever the order in the config. All additions are lines of the HeaderMap, since they are
 * written behind all other headers.
 */
export class HeaderRules {
  readonly #remove: readonly HeaderName[];
  readonly #rules: readonly Rule[];
  /** Scratch of `apply`: the rules that overwrite. `#values` has the value of each at the same index. */
  readonly #overwriting: Rule[] = [];
  readonly #values: (HeaderLine | string)[] = [];
  readonly #added: HeaderLine[] = [];

  constructor(remove: readonly HeaderName[], rules: readonly Rule[]) {
    this.#remove = remove;
    this.#rules = rules;
  }

  apply(headers: HeaderMap, source: FormatSource): void {
    for (let k = 0; k < this.#remove.length; k++) headers.remove(this.#remove[k]!);
    const overwriting = this.#overwriting;
    const values = this.#values;
    const added = this.#added;
    // Emptied here too: if formatting a value has thrown, they still hold values of another stream.
    overwriting.length = values.length = added.length = 0;
    for (let k = 0; k < this.#rules.length; k++) {
      const rule = this.#rules[k]!;
      if (!isWanted(rule, headers)) continue;
      const value = rule.name === undefined ? rule.value!.format(source) : lineOf(rule, source);
      if (value === undefined || value === "") continue;
      if (rule.action.startsWith("OVERWRITE")) {
        overwriting.push(rule);
        values.push(value);
      } else added.push(value as HeaderLine);
    }
    for (let k = 0; k < overwriting.length; k++) overwrite(headers, overwriting[k]!, values[k]!);
    for (let k = 0; k < added.length; k++) headers.appendLine(added[k]!);
    overwriting.length = values.length = added.length = 0;
  }
}

/** Whether the rule applies to this head. Rules without a name set pseudo headers, which only requests have. */
function isWanted({ name, action }: Rule, headers: HeaderMap): boolean {
  if (action === "ADD_IF_ABSENT") return !headers.has(name!);
  if (action === "OVERWRITE_IF_EXISTS") return headers.has(name!);
  return name !== undefined || headers instanceof RequestHeaders;
}

function lineOf(rule: Rule, source: FormatSource): HeaderLine | undefined {
  if (rule.line !== undefined) return rule.line;
  const value = rule.value!.format(source);
  if (value === "" && !rule.keepEmpty) return undefined;
  return new HeaderLine(rule.name!.text, value);
}

function overwrite(headers: HeaderMap, rule: Rule, value: HeaderLine | string): void {
  if (typeof value !== "string") {
    headers.remove(rule.name!);
    headers.appendLine(value);
  } else if (headers instanceof RequestHeaders) {
    if (rule.pseudo === ":path") headers.path = value;
    else if (rule.pseudo === ":method") headers.method = value;
    else headers.authority = value;
  }
}

/** Undefined: this level has no rules for that direction. */
export function compileHeaderRules(
  config: HeaderRulesConfig,
  direction: "request" | "response",
  path: string,
): HeaderRules | undefined {
  const add = config[`${direction}_headers_to_add`];
  const remove = config[`${direction}_headers_to_remove`];
  if (add.length === 0 && remove.length === 0) return undefined;
  const at = path === "" ? "" : `${path}.`;
  return new HeaderRules(
    remove.map((name, k) => removable(name, `${at}${direction}_headers_to_remove[${k}]`)),
    add.map((option, k) =>
      compileRule(option, direction, `${at}${direction}_headers_to_add[${k}]`),
    ),
  );
}

function removable(name: string, path: string): HeaderName {
  if (name.startsWith(":") || name.toLowerCase() === "host") {
    throw new ConfigError(path, `"${name}" may not be removed: every request needs it`);
  }
  return nameOf(name, path);
}

function compileRule(
  option: HeaderValueOption,
  direction: "request" | "response",
  path: string,
): Rule {
  const { key, value: text } = option.header;
  const action =
    option.append === undefined
      ? option.append_action
      : option.append
        ? "APPEND_IF_EXISTS_OR_ADD"
        : "OVERWRITE_IF_EXISTS_OR_ADD";
  const pseudo = pseudoOf(key, direction, action, path);
  const value = compileValue(text, `${path}.header.value`);
  const keepEmpty = option.keep_empty_value;
  if (pseudo !== undefined) {
    return { name: undefined, pseudo, action, line: undefined, value, keepEmpty };
  }
  const name = nameOf(key, `${path}.header.key`);
  const literal = !text.replaceAll("%%", "").includes("%");
  const line =
    literal && (text !== "" || keepEmpty) ? new HeaderLine(key, value.format(NOTHING)) : undefined;
  return { name, pseudo, action, line, value, keepEmpty };
}

function pseudoOf(
  key: string,
  direction: "request" | "response",
  action: Rule["action"],
  path: string,
): Pseudo | undefined {
  const lower = key.toLowerCase();
  if (!lower.startsWith(":") && !(lower === "host" && direction === "request")) return undefined;
  const pseudo = lower === "host" ? ":authority" : lower;
  const known = pseudo === ":path" || pseudo === ":method" || pseudo === ":authority";
  if (direction === "response" || !known || action !== "OVERWRITE_IF_EXISTS_OR_ADD") {
    throw new ConfigError(
      path,
      `"${key}" cannot be added; a request's :path, :method and host can be set with append_action OVERWRITE_IF_EXISTS_OR_ADD`,
    );
  }
  return pseudo;
}

function compileValue(text: string, path: string): Format {
  try {
    return compileFormat(text, { purpose: "header" });
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

/** In the place of a stream, to print a value that has no commands. */
const NOTHING = {
  info: undefined,
  request: undefined,
  response: undefined,
} as unknown as FormatSource;
