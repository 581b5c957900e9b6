import { ConfigError, type SetupContext } from "./extension.ts";
import { filterStateFactory } from "./filter-state.ts";
import type { Format, FormatSource } from "./format.ts";
import { compileLogFormat, SubstitutionFormatString } from "./log-format.ts";
import { type Static, Type } from "./schema.ts";

/** Envoy's `set_filter_state.v3.FilterStateValue`. */
export const FilterStateValue = Type.Object({
  object_key: Type.String({ minLength: 1 }),
  /** Whose factory makes the object; "": the factory called like the key. */
  factory_key: Type.String({ default: "" }),
  format_string: SubstitutionFormatString,
  /** Accepted and without effect: as in Envoy 1.40, the last value counts. */
  read_only: Type.Optional(Type.Boolean()),
  /** Nothing is set if the format gives an empty text. */
  skip_if_empty: Type.Boolean({ default: false }),
});
type FilterStateValue = Static<typeof FilterStateValue>;

/** Where values are put. The text of an object that cannot be made is dropped. */
type Put = (key: string, value: unknown) => void;

/** Compiles what the `set_filter_state` filters have in common: a list of objects made from formats. */
export function compileFilterStateValues(
  config: readonly FilterStateValue[],
  path: string,
  cx: SetupContext,
): (entry: FormatSource, put: Put) => void {
  const values = config.map((value, k) => {
    const { object_key: key, factory_key: factory, skip_if_empty: skips } = value;
    const make = filterStateFactory(factory || key);
    if (make === undefined) {
      const field = factory === "" ? "object_key" : "factory_key";
      throw new ConfigError(
        `${path}[${k}].${field}`,
        `'${key}' does not have an object factory; write factory_key: envoy.string`,
      );
    }
    const format = compileLogFormat(value.format_string, `${path}[${k}].format_string`, cx);
    return { key, make, skips, format };
  });
  return (entry, put) => {
    for (const { key, make, skips, format } of values) {
      const said = textOf(format, entry);
      const value = said === "" && skips ? undefined : make(said);
      if (value !== undefined) put(key, value);
    }
  };
}

function textOf(format: Format | undefined, entry: FormatSource): string {
  return format?.format(entry) ?? "";
}
