import { utf8Decode } from "../bytes.ts";
import type { Format, FormatSource } from "../format.ts";
import { LineWriter } from "../line-writer.ts";

/** Longer lines are made as text, as in core. */
const LINE_BYTES = 16 * 1024;

/** The line of a log as core writes it: from bytes, where the format makes them. */
export function lineOf(format: Format, source: FormatSource): string {
  const line = new LineWriter(new Uint8Array(LINE_BYTES));
  format.write?.(source, line);
  if (format.write === undefined || line.full) return format.format(source);
  return utf8Decode(line.memory, 0, line.at);
}
