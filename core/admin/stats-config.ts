import { type Static, Type } from "@sinclair/typebox";
import { Duration, StringMatcher, UInt32 } from "@tsproxy/sdk";
import { compileRegex } from "../inside/regex.ts";

const Patterns = Type.Object({ patterns: Type.Array(StringMatcher, { minItems: 1 }) });

/** Envoy's `metrics.v3.StatsConfig`, as far as main and admin read it. */
export const StatsConfigSchema = Type.Object({
  stats_tags: Type.Array(
    Type.Object({
      tag_name: Type.String({ default: "" }),
      regex: Type.Optional(Type.String({ maxLength: 1024 })),
      fixed_value: Type.Optional(Type.String()),
    }),
    { default: [] },
  ),
  use_all_default_tags: Type.Boolean({ default: true }),
  stats_matcher: Type.Optional(
    Type.Object({
      reject_all: Type.Optional(Type.Boolean()),
      exclusion_list: Type.Optional(Patterns),
      inclusion_list: Type.Optional(Patterns),
    }),
  ),
  histogram_bucket_settings: Type.Array(
    Type.Object({
      match: StringMatcher,
      buckets: Type.Array(Type.Number({ exclusiveMinimum: 0 }), { default: [], uniqueItems: true }),
      /** How many intervals Envoy makes room for at first, which changes nothing that can be seen. */
      bins: Type.Optional(UInt32({ minimum: 1, maximum: 46_082 })),
    }),
    { default: [] },
  ),
});
export const StatsFlushInterval = Duration({ default: 5_000 });
export type StatsConfig = Static<typeof StatsConfigSchema>;

/** Answers a test for names that the config leaves out. Those that begin with `@` are cells of /clusters, not stats, and stay. */
export function exclusion(config: StatsConfig | undefined): (name: string) => boolean {
  const leavesOut = matching(config?.stats_matcher);
  return (name) => !name.startsWith("@") && leavesOut(name);
}

function matching(matcher: StatsConfig["stats_matcher"]): (name: string) => boolean {
  if (matcher?.reject_all === true) return () => true;
  const list = matcher?.exclusion_list ?? matcher?.inclusion_list;
  if (list === undefined) return () => false;
  const matches = list.patterns.map(compileName);
  const any = (name: string) => matches.some((match) => match(name));
  return matcher?.exclusion_list === undefined ? (name) => !any(name) : any;
}

/** Compiles a StringMatcher for names of stats. A regex that RE2 does not know matches nothing. */
function compileName(matcher: StringMatcher): (name: string) => boolean {
  const { exact, prefix, suffix, contains, safe_regex, ignore_case } = matcher;
  const fold = (text: string) => (ignore_case ? text.toLowerCase() : text);
  if (safe_regex !== undefined) {
    const regex = compileRegex(safe_regex.regex);
    return (name) => regex.matches(name);
  }
  if (exact !== undefined) return (name) => fold(name) === fold(exact);
  if (prefix !== undefined) return (name) => fold(name).startsWith(fold(prefix));
  if (suffix !== undefined) return (name) => fold(name).endsWith(fold(suffix));
  return (name) => fold(name).includes(fold(contains ?? ""));
}
