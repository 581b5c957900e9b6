import { ConfigError } from "./extension.ts";
import { compileFormat, type Format, type FormatSource } from "./format.ts";
import { nameOf } from "./header-match.ts";
import { HeaderLine, type HeaderMap, type HeaderName } from "./headers.ts";
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

/** What changes a head: the rules of one level, say. */
export interface HeaderEdit {
  apply(headers: HeaderMap, source: FormatSource): void;
}

interface Rule {
  readonly name: HeaderName;
  readonly action: HeaderValueOption["append_action"];
  /** The whole line, made once, where the value has no commands. */
  readonly line: HeaderLine | undefined;
  readonly value: Format;
  readonly keepEmpty: boolean;
}

/**
 * What one level of the config (a route, its virtual host, the table) adds to heads of one direction and removes from them. As in
 * Envoy, a level first removes headers. Then it formats all its values, from the head as it is by then. Then it overwrites
 * headers, and last it appends, whatever the order in the config. All additions are lines of the HeaderMap, since they are
 * written behind all other headers.
 */
export class HeaderRules implements HeaderEdit {
  readonly #remove: readonly HeaderName[];
  readonly #rules: readonly Rule[];
  /** Scratch of `apply`: the rules that overwrite. `#values` has the value of each at the same index. */
  readonly #overwriting: Rule[] = [];
  readonly #values: HeaderLine[] = [];
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
      const line = lineOf(rule, source);
      if (line === undefined) continue;
      if (rule.action.startsWith("OVERWRITE")) {
        overwriting.push(rule);
        values.push(line);
      } else added.push(line);
    }
    for (let k = 0; k < overwriting.length; k++) {
      headers.remove(overwriting[k]!.name);
      headers.appendLine(values[k]!);
    }
    for (let k = 0; k < added.length; k++) headers.appendLine(added[k]!);
    overwriting.length = values.length = added.length = 0;
  }
}

function isWanted({ name, action }: Rule, headers: HeaderMap): boolean {
  if (action === "ADD_IF_ABSENT") return !headers.has(name);
  return action !== "OVERWRITE_IF_EXISTS" || headers.has(name);
}

function lineOf(rule: Rule, source: FormatSource): HeaderLine | undefined {
  if (rule.line !== undefined) return rule.line;
  const value = rule.value.format(source);
  if (value === "" && !rule.keepEmpty) return undefined;
  return new HeaderLine(rule.name.text, value);
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
    add.map((option, k) => compileRule(option, `${at}${direction}_headers_to_add[${k}]`)),
  );
}

/** What no rule may touch, in either direction. */
const isFixed = (name: string): boolean => name.startsWith(":") || name.toLowerCase() === "host";

function removable(name: string, path: string): HeaderName {
  if (isFixed(name)) {
    throw new ConfigError(path, `"${name}" may not be removed: every request needs it`);
  }
  return nameOf(name, path);
}

function compileRule(option: HeaderValueOption, path: string): Rule {
  const { key, value: text } = option.header;
  const action =
    option.append === undefined
      ? option.append_action
      : option.append
        ? "APPEND_IF_EXISTS_OR_ADD"
        : "OVERWRITE_IF_EXISTS_OR_ADD";
  if (isFixed(key)) {
    throw new ConfigError(
      path,
      `"${key}" may not be modified; host_rewrite_literal, prefix_rewrite and regex_rewrite of a route change host and path`,
    );
  }
  const value = compileValue(text, `${path}.header.value`);
  const keepEmpty = option.keep_empty_value;
  const name = nameOf(key, `${path}.header.key`);
  const literal = !text.replaceAll("%%", "").includes("%");
  const line =
    literal && (text !== "" || keepEmpty) ? new HeaderLine(key, value.format(NOTHING)) : undefined;
  return { name, action, line, value, keepEmpty };
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
