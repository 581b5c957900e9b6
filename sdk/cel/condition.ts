import { ConfigError, type SetupContext } from "../extension.ts";
import type { CelSource } from "./attributes.ts";
import { type CelProgram, compileCel } from "./compile.ts";

/** An expression of the config, as text or parsed (`v1alpha1.Expr`). `path`: where it stands. */
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

/** Whether it is true. An error, or a value of another kind, is not. */
export function celCondition(
  expression: unknown,
  path: string,
  cx: Pick<SetupContext, "regex">,
): (source: CelSource) => boolean {
  const program = celProgram(expression, path, cx);
  return (source) => program(source) === true;
}
