import { ConfigError, type SetupContext } from "./extension.ts";
import { filterStateText, parseIpPort } from "./filter-state.ts";
import { CidrRange, CidrRanges, parseIp } from "./ip.ts";
import { type Static, Type } from "./schema.ts";
import { compileStringMatch, StringMatcher } from "./string-match.ts";

/** Envoy's `type.matcher.v3.FilterStateMatcher`: one of the two matches is given. */
export const FilterStateMatcher = Type.Object({
  key: Type.String({ minLength: 1 }),
  string_match: Type.Optional(StringMatcher),
  /** Matches objects of the factory `envoy.network.ip` alone. */
  address_match: Type.Optional(
    Type.Object({
      ranges: Type.Array(CidrRange, { default: [] }),
      invert_match: Type.Boolean({ default: false }),
    }),
  ),
});
export type FilterStateMatcher = Static<typeof FilterStateMatcher>;

/** An object that is missing never matches, whatever is inverted. */
export function compileFilterStateMatch(
  config: FilterStateMatcher,
  path: string,
  cx: SetupContext,
): (state: ReadonlyMap<string, unknown> | undefined) => boolean {
  const { key, string_match: text, address_match: address } = config;
  if ((text === undefined) === (address === undefined))
    throw new ConfigError(path, "give one of string_match and address_match");
  if (text !== undefined) {
    const matches = compileStringMatch(text, `${path}.string_match`, cx);
    return (state) => {
      const said = filterStateText(state?.get(key));
      return said !== undefined && matches(said);
    };
  }
  const { ranges, invert_match: inverts } = address!;
  const set = new CidrRanges(ranges, `${path}.address_match.ranges`);
  return (state) => {
    const value = state?.get(key);
    const found = typeof value === "object" ? parseIpPort(filterStateText(value) ?? "") : undefined;
    const ip = found && parseIp(found.ip);
    return ip !== undefined && set.contains(ip) !== inverts;
  };
}
