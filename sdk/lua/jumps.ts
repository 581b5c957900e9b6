/** `goto` and its labels. */
import type { Block } from "./ast.ts";

/** A `goto` that leads nowhere. */
export class BadGoto extends Error {
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}

/**
 * Locals that are declared between a `goto` and its label (at `end`) are seen by what follows the label, unless nothing follows:
 * Lua takes a label at the end of its block for one behind the block.
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
