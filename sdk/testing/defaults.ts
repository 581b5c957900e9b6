import type { Static, TSchema } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";

/** The config as core would hand it to `setup`: the schema's defaults filled in. Nothing is checked. */
export function withDefaults<S extends TSchema>(schema: S, config: unknown): Static<S> {
  return Value.Default(schema, JSON.parse(JSON.stringify(config))) as Static<S>;
}
