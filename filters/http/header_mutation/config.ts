import { Enum, HeaderValueOption, type Static, StringMatcher, Type } from "@tsproxy/sdk";

/** Envoy's `mutation_rules.v3.HeaderMutation`: exactly one of the three. */
export const Mutation = Type.Object({
  remove: Type.Optional(Type.String()),
  append: Type.Optional(HeaderValueOption),
  remove_on_match: Type.Optional(Type.Object({ key_matcher: StringMatcher })),
});
export type Mutation = Static<typeof Mutation>;

/** Envoy's `core.v3.KeyValueMutation`. */
export const ParameterMutation = Type.Object({
  remove: Type.Optional(Type.String({ maxLength: 16_384 })),
  append: Type.Optional(
    Type.Object({
      record: Type.Object({
        key: Type.String({ minLength: 1, maxLength: 16_384 }),
        value: Type.Unknown(),
      }),
      action: Enum(
        [
          "APPEND_IF_EXISTS_OR_ADD",
          "ADD_IF_ABSENT",
          "OVERWRITE_IF_EXISTS_OR_ADD",
          "OVERWRITE_IF_EXISTS",
        ],
        { default: "APPEND_IF_EXISTS_OR_ADD" },
      ),
    }),
  ),
});
export type ParameterMutation = Static<typeof ParameterMutation>;

const list = Type.Array(Mutation, { default: [] });
const Mutations = Type.Object(
  {
    request_mutations: list,
    response_mutations: list,
    request_trailers_mutations: list,
    response_trailers_mutations: list,
    query_parameter_mutations: Type.Array(ParameterMutation, { default: [] }),
  },
  { default: {} },
);
export type Mutations = Static<typeof Mutations>;

export const Config = Type.Object({
  mutations: Mutations,
  most_specific_header_mutations_wins: Type.Boolean({ default: false }),
});

export const RouteConfig = Type.Object({ mutations: Mutations });
