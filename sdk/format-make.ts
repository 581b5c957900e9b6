import type { Command, FormatText } from "./format.ts";

/** Makes a command from what stands in brackets and after the colon. Throws an Error that says what is wrong with these. */
export type Make = (
  parameter: string | undefined,
  length: number | undefined,
  text: FormatText,
) => Command;

/** A command without parameter and length. */
export function plain(value: Command): Make {
  return (parameter, length) => {
    if (parameter !== undefined && parameter !== "") throw new TypeError("takes no parameter");
    if (length !== undefined) throw new TypeError("takes no length");
    return value;
  };
}

export const nonEmpty = (text: string | undefined): string | undefined =>
  text === "" ? undefined : text;

export function cut(text: string, length: number | undefined): string {
  return length === undefined || text.length <= length ? text : text.slice(0, length);
}
