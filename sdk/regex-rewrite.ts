import { ConfigError, type Regex, type SetupContext } from "./extension.ts";
import { SafeRegex, type Static, Type } from "./schema.ts";
import { compileRegex } from "./string-match.ts";
import { wireText } from "./wire-text.ts";

/** Envoy's `type.matcher.v3.RegexMatchAndSubstitute`. */
export const RegexRewrite = Type.Object({
  pattern: SafeRegex,
  substitution: Type.String({ default: "" }),
});
export type RegexRewrite = Static<typeof RegexRewrite>;

/** What a text becomes. `path` is where the rewrite stands in the config. */
export function compileRewrite(
  config: RegexRewrite,
  path: string,
  cx: SetupContext,
): (text: string) => string {
  const regex: Regex = compileRegex(config.pattern.regex, `${path}.pattern.regex`, cx);
  const substitution = wireText(config.substitution, `${path}.substitution`);
  checkSubstitution(substitution, regex.groups, `${path}.substitution`);
  return (text) => regex.replaceAll(text, substitution);
}

/** `\0` to `\9` are groups and `\\` is a backslash; another character after a backslash means nothing (RE2). */
function checkSubstitution(substitution: string, groups: number, path: string): void {
  const most = Math.max(
    0,
    ...[...substitution.matchAll(/\\\\|\\([0-9])/g)].map((m) => Number(m[1] ?? 0)),
  );
  if (most > groups) {
    throw new ConfigError(
      path,
      `"${substitution}" asks for group ${most}; the pattern has ${groups}`,
    );
  }
  if (substitution.replace(/\\[0-9\\]/g, "").includes("\\")) {
    throw new ConfigError(
      path,
      `"${substitution}" has a backslash before no digit; write \\\\\\\\ for a backslash`,
    );
  }
}
