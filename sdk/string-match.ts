import { ConfigError, type Regex, type SetupContext } from "./extension.ts";
import { SafeRegex, type Static, Type } from "./schema.ts";

/** Envoy's `type.matcher.v3.StringMatcher`. */
export const StringMatcher = Type.Object({
  exact: Type.Optional(Type.String()),
  prefix: Type.Optional(Type.String({ minLength: 1 })),
  suffix: Type.Optional(Type.String({ minLength: 1 })),
  contains: Type.Optional(Type.String({ minLength: 1 })),
  safe_regex: Type.Optional(SafeRegex),
  ignore_case: Type.Boolean({ default: false }),
});
export type StringMatcher = Static<typeof StringMatcher>;

/** Whether a text is what the config asks for. */
export type StringMatch = (text: string) => boolean;

/** Envoy's StringMatcher. `path` is where it stands in the config. */
export function compileStringMatch(
  config: StringMatcher,
  path: string,
  cx: Pick<SetupContext, "regex">,
): StringMatch {
  const forms = (["exact", "prefix", "suffix", "contains", "safe_regex"] as const).filter(
    (form) => config[form] !== undefined,
  );
  if (forms.length !== 1) {
    throw new ConfigError(path, "give one of exact, prefix, suffix, contains and safe_regex");
  }
  if (config.safe_regex !== undefined) {
    const regex = compileRegex(config.safe_regex.regex, `${path}.safe_regex.regex`, cx);
    return (text) => regex.matches(text);
  }
  const fold = config.ignore_case;
  const wanted = (value: string | undefined) =>
    fold ? (value ?? "").toLowerCase() : (value ?? "");
  const of = (text: string) => (fold ? text.toLowerCase() : text);
  if (config.exact !== undefined) {
    const exact = wanted(config.exact);
    return (text) => of(text) === exact;
  }
  if (config.prefix !== undefined) {
    const prefix = wanted(config.prefix);
    return (text) => of(text).startsWith(prefix);
  }
  if (config.suffix !== undefined) {
    const suffix = wanted(config.suffix);
    return (text) => of(text).endsWith(suffix);
  }
  const part = wanted(config.contains);
  return (text) => of(text).includes(part);
}

/** A regular expression of the config; what RE2 has no syntax for refuses the config. */
export function compileRegex(
  pattern: string,
  path: string,
  cx: Pick<SetupContext, "regex">,
): Regex {
  try {
    return cx.regex(pattern);
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}
