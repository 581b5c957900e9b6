import {
  ConfigError,
  compileHeaderRules,
  compileStringMatch,
  type FormatSource,
  type HeaderEdit,
  type HeaderMap,
  nameOf,
  type RequestHeaders,
  type SetupContext,
} from "@tsproxy/sdk";
import type { Mutation, Mutations } from "./config.ts";
import { compileParameterMutations, type ParameterEdit } from "./query.ts";

/** A list of mutations, compiled; carried out in the order of the config. */
export class CompiledMutations {
  readonly #request: readonly HeaderEdit[];
  readonly #query: ParameterEdit | undefined;
  readonly #response: readonly HeaderEdit[];
  readonly #requestTrailers: readonly HeaderEdit[];
  readonly #responseTrailers: readonly HeaderEdit[];

  constructor(config: Mutations, cx: SetupContext) {
    const compile = (list: Exclude<keyof Mutations, "query_parameter_mutations">) =>
      config[list].map((mutation, k) => compileEdit(mutation, `mutations.${list}[${k}]`, cx));
    this.#request = compile("request_mutations");
    this.#response = compile("response_mutations");
    this.#requestTrailers = compile("request_trailers_mutations");
    this.#responseTrailers = compile("response_trailers_mutations");
    this.#query = compileParameterMutations(
      config.query_parameter_mutations,
      "mutations.query_parameter_mutations",
    );
  }

  editRequest(headers: RequestHeaders, source: FormatSource): void {
    applyAll(this.#request, headers, source);
    this.#query?.apply(headers, source);
  }
  editResponse(headers: HeaderMap, source: FormatSource): void {
    applyAll(this.#response, headers, source);
  }
  editRequestTrailers(trailers: HeaderMap, source: FormatSource): void {
    applyAll(this.#requestTrailers, trailers, source);
  }
  editResponseTrailers(trailers: HeaderMap, source: FormatSource): void {
    applyAll(this.#responseTrailers, trailers, source);
  }
}

function applyAll(edits: readonly HeaderEdit[], headers: HeaderMap, source: FormatSource): void {
  for (let k = 0; k < edits.length; k++) edits[k]!.apply(headers, source);
}

function compileEdit(mutation: Mutation, path: string, cx: SetupContext): HeaderEdit {
  const { remove, append, remove_on_match: match } = mutation;
  const given = [remove, append, match].filter((form) => form !== undefined);
  if (given.length !== 1) {
    throw new ConfigError(path, "give one of remove, append and remove_on_match");
  }
  if (append !== undefined) return compileAppend(append, `${path}.append`);
  if (match !== undefined) {
    const at = `${path}.remove_on_match.key_matcher`;
    const matches = compileStringMatch(match.key_matcher, at, cx);
    return { apply: (headers) => removeMatching(headers, matches) };
  }
  if (remove === undefined || remove === "") return { apply: () => {} };
  if (isFixed(remove)) throw new ConfigError(`${path}.remove`, FIXED);
  const name = nameOf(remove, `${path}.remove`);
  return { apply: (headers) => void headers.remove(name) };
}

const FIXED = "a message cannot be without its method, path, status and host";
const isFixed = (key: string): boolean => key.startsWith(":") || key.toLowerCase() === "host";

function compileAppend(option: NonNullable<Mutation["append"]>, path: string): HeaderEdit {
  const { key } = option.header;
  if (isFixed(key)) {
    throw new ConfigError(
      `${path}.header.key`,
      `"${key}" cannot be mutated; rewrite it in the route`,
    );
  }
  // Header rules of one level are not applied in the order of the config, so each mutation is a level of its own.
  const rules = compileHeaderRules(
    {
      request_headers_to_add: [],
      request_headers_to_remove: [],
      response_headers_to_add: [option],
      response_headers_to_remove: [],
    },
    "response",
    "",
  );
  if (rules === undefined) throw new ConfigError(path, "adds nothing");
  return rules;
}

const HOST = "host";

function removeMatching(headers: HeaderMap, matches: (name: string) => boolean): void {
  const found = new Set<string>();
  for (const [name] of headers) if (name !== HOST && matches(name)) found.add(name);
  for (const name of found) headers.remove(name);
}
