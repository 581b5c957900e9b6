/** `goto` and its labels. */
import type { Block } from "./ast.ts";

/** A `goto` that has no label to jump to, or would jump into the scope of a local. */
export class BadGoto extends Error {
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}

/**
 * Throws BadGoto if a local is declared between the `goto`, in the first statement, and its label at `end`: what follows the
 * label would see it. At the end of a block a label is allowed: Lua treats it as outside of the locals' scope.
 */
export function refuseJumpIntoScope(block: Block, end: number): void {
  if (block.slice(end).every(({ type }) => type === "label")) return;
  const { label } = block[end] as { label: string };
  for (const statement of block.slice(1, end)) {
    const local =
      statement.type === "local"
        ? statement.locals[0]
        : statement.type === "localFunction"
          ? statement.local
          : undefined;
    if (local === undefined) continue;
    const message = `<goto ${label}> jumps into the scope of local '${local.name}'`;
    throw new BadGoto(message, block[0]!.line);
  }
}

/** Whether a `goto` in these statements, or in blocks within, names the label. */
export function jumpsTo(block: Block, label: string): boolean {
  return block.some((statement) => {
    switch (statement.type) {
      case "goto":
        return statement.label === label;
      case "do":
      case "while":
      case "repeat":
      case "for":
      case "forIn":
        return jumpsTo(statement.body, label);
      case "if":
        return statement.arms.some((arm) => jumpsTo(arm.body, label));
      default:
        return false;
    }
  });
}
