import { ConfigError, type SetupContext } from "./extension.ts";
import { type Static, Type } from "./schema.ts";
import { compileStringMatch, StringMatcher } from "./string-match.ts";

const DoubleMatcher = Type.Object({
  exact: Type.Optional(Type.Number()),
  range: Type.Optional(
    Type.Object({ start: Type.Number({ default: 0 }), end: Type.Number({ default: 0 }) }),
  ),
});

/** Envoy's `type.matcher.v3.ValueMatcher`: one of its fields is given. */
export interface ValueMatcher {
  readonly null_match?: object;
  readonly double_match?: Static<typeof DoubleMatcher>;
  readonly string_match?: StringMatcher;
  readonly bool_match?: boolean;
  readonly present_match?: boolean;
  readonly list_match?: { readonly one_of?: ValueMatcher };
  readonly or_match?: { readonly value_matchers: readonly ValueMatcher[] };
}
export const ValueMatcher = Type.Unsafe<ValueMatcher>(
  Type.Recursive((Value) =>
    Type.Object({
      null_match: Type.Optional(Type.Object({})),
      double_match: Type.Optional(DoubleMatcher),
      string_match: Type.Optional(StringMatcher),
      bool_match: Type.Optional(Type.Boolean()),
      present_match: Type.Optional(Type.Boolean()),
      list_match: Type.Optional(Type.Object({ one_of: Type.Optional(Value) })),
      or_match: Type.Optional(Type.Object({ value_matchers: Type.Array(Value, { minItems: 2 }) })),
    }),
  ),
);

/** Envoy's `type.matcher.v3.MetadataMatcher`. */
export const MetadataMatcher = Type.Object({
  filter: Type.String({ minLength: 1 }),
  path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
  value: ValueMatcher,
  invert: Type.Boolean({ default: false }),
});
export type MetadataMatcher = Static<typeof MetadataMatcher>;

type Values = ReadonlyMap<string, Readonly<Record<string, unknown>>>;

/** Whether a JSON value is what the config asks for; undefined: there is none. */
export type ValueMatch = (value: unknown) => boolean;

/** `undefined` metadata is metadata without values. */
export type MetadataMatch = (metadata: Values | undefined) => boolean;

/** A condition on dynamic metadata. `path` is where it stands in the config. */
export function compileMetadataMatch(
  config: MetadataMatcher,
  path: string,
  cx: SetupContext,
): MetadataMatch {
  const matches = compileValueMatch(config.value, `${path}.value`, cx);
  const keys = config.path.map(({ key }) => key);
  return (metadata) => matches(valueAt(metadata?.get(config.filter), keys)) !== config.invert;
}

/** The value at a path of keys, each within the one before; undefined: there is none. */
export function valueAt(struct: unknown, keys: readonly string[]): unknown {
  let value = struct;
  for (const key of keys) {
    if (typeof value !== "object" || value === null || !Object.hasOwn(value, key)) return undefined;
    value = (value as Record<string, unknown>)[key];
  }
  return value;
}

/** A condition on one value. Throws a ConfigError unless exactly one form is given. */
export function compileValueMatch(
  config: ValueMatcher,
  path: string,
  cx: SetupContext,
): ValueMatch {
  const forms = Object.keys(config).filter(
    (form) => config[form as keyof ValueMatcher] !== undefined,
  );
  if (forms.length !== 1) {
    throw new ConfigError(
      path,
      "give one of null_match, double_match, string_match, bool_match, present_match, list_match and or_match",
    );
  }
  const { string_match: text, double_match: number, list_match: list, or_match: or } = config;
  if (text !== undefined) {
    const matches = compileStringMatch(text, `${path}.string_match`, cx);
    return (value) => typeof value === "string" && matches(value);
  }
  if (number !== undefined) return compileDoubleMatch(number, `${path}.double_match`);
  if (config.bool_match !== undefined) return (value) => value === config.bool_match;
  // As in Envoy 1.40, null is a value, and `present_match: false` never matches.
  if (config.present_match !== undefined) {
    const { present_match: wanted } = config;
    return (value) => wanted && value !== undefined;
  }
  if (list !== undefined) {
    if (list.one_of === undefined) throw new ConfigError(`${path}.list_match`, "one_of is missing");
    const one = compileValueMatch(list.one_of, `${path}.list_match.one_of`, cx);
    return (value) => Array.isArray(value) && value.some(one);
  }
  if (or !== undefined) {
    const any = or.value_matchers.map((each, k) =>
      compileValueMatch(each, `${path}.or_match.value_matchers[${k}]`, cx),
    );
    return (value) => any.some((matches) => matches(value));
  }
  return (value) => value === null;
}

function compileDoubleMatch(config: Static<typeof DoubleMatcher>, path: string): ValueMatch {
  const { exact, range } = config;
  if ((exact === undefined) === (range === undefined)) {
    throw new ConfigError(path, "give one of exact and range");
  }
  if (exact !== undefined) return (value) => value === exact;
  return (value) => typeof value === "number" && value >= range!.start && value < range!.end;
}
