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
} from "@tsproxy/sdk";

/** Envoy's `config.common.mutation_rules.v3.HeaderMutation`: one of its fields is given. */
export const HeaderMutation = Type.Object({
  append: Type.Optional(HeaderValueOption),
  remove: Type.Optional(Type.String({ minLength: 1 })),
  remove_on_match: Type.Optional(Type.Object({ key_matcher: StringMatcher })),
});

type Edit = (headers: RequestHeaders, source: FormatSource) => void;

/** Compiles a list of mutations, which are applied in its order. `path`: where the list stands. */
export function compileHeaderMutations(
  list: readonly Static<typeof HeaderMutation>[],
  path: string,
  cx: SetupContext,
): Edit {
  const steps = list.map((mutation, k) => compileStep(mutation, `${path}[${k}]`, cx));
  return (headers, source) => {
    for (const step of steps) step(headers, source);
  };
}

function compileStep(config: Static<typeof HeaderMutation>, path: string, cx: SetupContext): Edit {
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
