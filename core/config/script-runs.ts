/** How a scalar is written: with escapes, with quotes that are doubled, or as it stands but for folded lines. */
type Style = "double" | "single" | "plain";

const ESCAPE = /\\(?:x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|\r?\n|[\s\S])/y;
/** Escapes of white space, and those of a line break, which stand for nothing. */
const ESCAPED_SPACE = /^\\(?:[tnrv fNLP_]|\t|x0[9aAdD]|x20|u000[9aAdD]|u0020|\r?\n)$/;

/** A run by its offset in the file. */
interface RunAt {
  readonly row: number;
  readonly column: number;
  size: number;
  readonly offset: number;
}

/**
 * Finds each character of a scalar's value in the file's text, where it begins at `offset`, and answers the runs of them that
 * stand side by side there. White space may be folded, and is passed over at both sides.
 */
export function runsOf(value: string, text: string, offset: number): RunAt[] {
  const style = styleOf(text[offset]);
  const runs: RunAt[] = [];
  let at = style !== "plain" ? offset + 1 : contentAt(text, offset);
  let row = 0;
  let lineAt = 0;
  /** Where the next character stands if it goes on with the run. */
  let next = Number.NaN;
  for (let k = 0; k < value.length; k++) {
    if (value[k] === "\n") {
      row++;
      lineAt = k + 1;
      next = Number.NaN;
    }
    if (/\s/.test(value[k]!)) {
      next++;
      continue;
    }
    at = behindSpace(text, at, style);
    if (at !== next) runs.push({ row, column: k - lineAt, size: 0, offset: at });
    const run = runs.at(-1)!;
    run.size = k - lineAt - run.column + 1;
    const size = sizeAt(text, at, style);
    // Of an escaped character beyond 16 bits both halves stand at one place.
    if (style === "double" && text.startsWith("\\U", at) && value.codePointAt(k)! > 0xffff) k++;
    at += size;
    next = size === 1 ? at : Number.NaN;
  }
  return runs;
}

const styleOf = (first: string | undefined): Style =>
  first === '"' ? "double" : first === "'" ? "single" : "plain";

/** Behind the line of a block scalar that says what it is. */
function contentAt(text: string, offset: number): number {
  if (text[offset] !== ">" && text[offset] !== "|") return offset;
  const end = text.indexOf("\n", offset);
  return end < 0 ? text.length : end + 1;
}

function behindSpace(text: string, from: number, style: Style): number {
  let at = from;
  while (at < text.length) {
    if (/\s/.test(text[at]!)) at++;
    else if (style === "double" && ESCAPED_SPACE.test(escapeAt(text, at)))
      at += escapeAt(text, at).length;
    else break;
  }
  return at;
}

/** How many characters of the file stand for the one at that offset. */
function sizeAt(text: string, at: number, style: Style): number {
  if (style === "double") return escapeAt(text, at).length || 1;
  return style === "single" && text.startsWith("''", at) ? 2 : 1;
}

function escapeAt(text: string, at: number): string {
  ESCAPE.lastIndex = at;
  return ESCAPE.exec(text)?.[0] ?? "";
}
