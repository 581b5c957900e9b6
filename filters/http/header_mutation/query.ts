import {
  ConfigError,
  compileFormat,
  type Format,
  type FormatSource,
  headerText,
  latin1Encode,
  percentDecode,
  type RequestHeaders,
} from "@tsproxy/sdk";
import type { ParameterMutation } from "./config.ts";

/** Edits of the query, in the order of the config. */
export interface ParameterEdit {
  apply(headers: RequestHeaders, source: FormatSource): void;
}

interface Step {
  readonly key: string;
  /** Undefined: the parameter is removed. */
  readonly value: Format | undefined;
  readonly action: NonNullable<ParameterMutation["append"]>["action"];
}

/** Undefined: there are none. */
export function compileParameterMutations(
  mutations: readonly ParameterMutation[],
  path: string,
): ParameterEdit | undefined {
  if (mutations.length === 0) return undefined;
  const steps = mutations.map((mutation, k) => compileStep(mutation, `${path}[${k}]`));
  return {
    apply(headers, source) {
      const { path: before } = headers;
      // The targets of CONNECT and OPTIONS * have no query.
      if (!before.startsWith("/")) return;
      const at = before.indexOf("?");
      const query = new Query(at < 0 ? "" : before.slice(at + 1));
      for (const step of steps) query.apply(step, source);
      headers.path = (at < 0 ? before : before.slice(0, at)) + query.text;
    },
  };
}

function compileStep({ append, remove = "" }: ParameterMutation, path: string): Step {
  if (append === undefined) {
    if (remove === "") throw new ConfigError(path, "give one of append and remove");
    return {
      key: headerText(remove, `${path}.remove`),
      value: undefined,
      action: "APPEND_IF_EXISTS_OR_ADD",
    };
  }
  const { key, value } = append.record;
  const at = `${path}.append.record.value`;
  if (typeof value !== "string") throw new ConfigError(at, "only a string can stand in a query");
  try {
    const name = headerText(key, `${path}.append.record.key`);
    return { key: name, value: compileFormat(value, { purpose: "header" }), action: append.action };
  } catch (error) {
    throw new ConfigError(at, error instanceof Error ? error.message : String(error));
  }
}

/** Parameters of a query as Envoy keeps them: decoded, in the order of their names. */
class Query {
  readonly #values = new Map<string, string[]>();

  constructor(text: string) {
    let at = 0;
    while (at < text.length) {
      let end = text.indexOf("&", at);
      if (end < 0) end = text.length;
      const part = text.slice(at, end);
      const equals = part.indexOf("=");
      const name = percentDecode(equals < 0 ? part : part.slice(0, equals));
      this.#add(name, equals < 0 ? "" : percentDecode(part.slice(equals + 1)));
      at = end + 1;
    }
  }

  apply({ key, value, action }: Step, source: FormatSource): void {
    if (value === undefined) {
      this.#values.delete(key);
      return;
    }
    const exists = this.#values.has(key);
    if (action === "ADD_IF_ABSENT" && exists) return;
    if (action === "OVERWRITE_IF_EXISTS" && !exists) return;
    if (action.startsWith("OVERWRITE")) this.#values.delete(key);
    this.#add(key, encode(value.format(source)));
  }

  #add(name: string, value: string): void {
    const values = this.#values.get(name);
    if (values === undefined) this.#values.set(name, [value]);
    else values.push(value);
  }

  /** With its `?`; "" if nothing is left. */
  get text(): string {
    const names = [...this.#values.keys()].sort();
    const parts = names.flatMap((name) =>
      this.#values.get(name)!.map((value) => `${carried(name)}=${carried(value)}`),
    );
    return parts.length === 0 ? "" : `?${parts.join("&")}`;
  }
}

const escaped = (byte: number): string => `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;

/** Everything but RFC 3986's unreserved characters is escaped. */
function encode(text: string): string {
  return text.replace(/[^A-Za-z0-9\-._~]/g, (char) => escaped(latin1Encode(char)[0]!));
}

/** Escapes what a request line cannot hold and what would end the query. (Envoy leaves all that it has decoded as it is.) */
function carried(text: string): string {
  return text.replace(/[^!-~\u0080-\u00ff]|#/g, (char) => escaped(char.charCodeAt(0)));
}
