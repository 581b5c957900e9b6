import { readFileSync } from "node:fs";
import { formatDiagnostic } from "../config/diagnostic.ts";
import { upgrade } from "../config/upgrade.ts";
import { problem } from "../problem.ts";
import { said } from "./flags.ts";

/** Prints a config in Envoy's v3 form. Answers the exit code: 1 if a part has no v3 form, or it cannot be read (`json`). */
export function configUpgrade(file: string, json: boolean): number {
  let text: string;
  try {
    text = said(`cannot read ${file}`, () => readFileSync(file, "utf8"));
  } catch (error) {
    if (!json) throw error;
    const errors = [problem((error as Error).message)];
    process.stdout.write(`${JSON.stringify({ file, ok: false, errors })}\n`);
    return 1;
  }
  const made = upgrade({ file, text });
  const ok = made.text !== undefined && made.errors.length === 0;
  if (json) process.stdout.write(`${JSON.stringify({ file, ok, ...made })}\n`);
  else {
    for (const error of made.errors) process.stderr.write(`${formatDiagnostic(error)}\n`);
    process.stdout.write(made.text ?? "");
  }
  return ok ? 0 : 1;
}
