import type { Static, TSchema } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";

/** The config as core would hand it to `setup`: the schema's defaults filled in. Throws if the schema refuses it. */
export function withDefaults<S extends TSchema>(schema: S, config: unknown): Static<S> {
  const filled = Value.Default(schema, JSON.parse(JSON.stringify(config)));
  const error = Value.Errors(schema, filled).First();
  if (error !== undefined) throw new Error(`${error.path}: ${error.message}`);
  return filled as Static<S>;
}
