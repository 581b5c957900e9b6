import {
  ConfigError,
  compileHeaderRules,
  compileStringMatch,
  type FormatSource,
  type HeaderName,
  type HeaderRules,
  HeaderValueOption,
  nameOf,
  type RequestHeaders,
  type SetupContext,
  type Static,
  StringMatcher,
  Type,
  TypedExtension,
} from "@tsproxy/sdk";

/** Envoy's `config.common.mutation_rules.v3.HeaderMutation`: one of its fields is given. */
const HeaderMutation = Type.Object({
  append: Type.Optional(HeaderValueOption),
  remove: Type.Optional(Type.String({ minLength: 1 })),
  remove_on_match: Type.Optional(Type.Object({ key_matcher: StringMatcher })),
});

/** An entry of `early_header_mutation_extensions`. */
export const EarlyHeaderMutation = TypedExtension({
  "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation": Type.Object({
    mutations: Type.Array(HeaderMutation, { minItems: 1 }),
  }),
});
export type EarlyHeaderMutation = Static<typeof EarlyHeaderMutation>;

/** Edits request heads in the order of the config, before the client is found and the route is chosen. */
export class EarlyHeaderMutations {
  readonly #steps: readonly ((headers: RequestHeaders, source: FormatSource) => void)[];

  constructor(config: readonly EarlyHeaderMutation[], path: string, cx: SetupContext) {
    this.#steps = config.flatMap((extension, e) =>
      extension.typed_config.mutations.map((mutation, k) =>
        compileStep(mutation, `${path}[${e}].typed_config.mutations[${k}]`, cx),
      ),
    );
  }

  apply(headers: RequestHeaders, source: FormatSource): void {
    for (const step of this.#steps) step(headers, source);
  }
}

function compileStep(
  config: Static<typeof HeaderMutation>,
  path: string,
  cx: SetupContext,
): (headers: RequestHeaders, source: FormatSource) => void {
  const { append, remove, remove_on_match: pattern } = config;
  const key = remove ?? append?.header.key ?? "";
  if (key.startsWith(":") || key.toLowerCase() === "host") {
    throw new ConfigError(path, `"${key}": :-prefixed or host headers may not be modified`);
  }
  if (remove !== undefined) {
    const name: HeaderName = nameOf(remove, `${path}.remove`);
    return (headers) => void headers.remove(name);
  }
  if (pattern !== undefined) {
    const matches = compileStringMatch(
      pattern.key_matcher,
      `${path}.remove_on_match.key_matcher`,
      cx,
    );
    return (headers) => {
      for (const name of new Set([...headers].map(([each]) => each))) {
        if (name !== "host" && matches(name)) headers.remove(name);
      }
    };
  }
  const rules: HeaderRules | undefined = compileHeaderRules(
    {
      request_headers_to_add: append === undefined ? [] : [append],
      request_headers_to_remove: [],
      response_headers_to_add: [],
      response_headers_to_remove: [],
    },
    "request",
    path,
  );
  return (headers, source) => rules?.apply(headers, source);
}
