import type { SourcePositions } from "../packages/source-positions.ts";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";

/**
 * A problem at the first line that differs between two builds of a package: code that is stopped while it hangs leaves no stack,
 * so this is the best hint that there is. Without a place if no line differs.
 */
export function firstChange(
  message: string,
  before: SourcePositions,
  after: SourcePositions,
): Problem {
  const old = before.contents();
  for (const [file, text] of after.contents()) {
    const known = old.get(file);
    if (known === text) continue;
    const line = firstDifference(known ?? "", text);
    const column = 1 + /^\s*/.exec(text.split("\n")[line - 1]!)![0].length;
    const frame = codeFrame(text, line, column);
    return { ...problem(message), file: shortPath(file), line, column, frame };
  }
  return problem(message);
}

/** The number of the first line of `after` that `before` does not have there; of two equal texts, that of the last line. */
function firstDifference(before: string, after: string): number {
  const old = before.split("\n");
  const lines = after.split("\n");
  const at = lines.findIndex((line, k) => line !== old[k]);
  return at < 0 ? lines.length : at + 1;
}
