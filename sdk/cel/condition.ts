import { ConfigError, type SetupContext } from "../extension.ts";
import type { CelSource } from "./attributes.ts";
import { type CelProgram, compileCel } from "./compile.ts";

/** Compiles an expression of the config, text or parsed (`v1alpha1.Expr`). `path`: its place in the config, for errors. */
export function celProgram(
  expression: unknown,
  path: string,
  cx: Pick<SetupContext, "regex">,
): CelProgram {
  try {
    return compileCel(expression, (pattern) => cx.regex(pattern));
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}

/** Compiles an expression to a condition that is met if the value is `true`, not if it is an error or of another type. */
export function celCondition(
  expression: unknown,
  path: string,
  cx: Pick<SetupContext, "regex">,
): (source: CelSource) => boolean {
  const program = celProgram(expression, path, cx);
  return (source) => program(source) === true;
}
