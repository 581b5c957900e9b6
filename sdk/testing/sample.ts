import type { TSchema } from "@sinclair/typebox";

/** The keywords of JSON Schema that `sampleConfig` reads: TypeBox's schemas, or these as JSON. */
interface Schema {
  readonly type?: string;
  readonly const?: unknown;
  readonly default?: unknown;
  readonly examples?: readonly unknown[];
  readonly enum?: readonly unknown[];
  readonly anyOf?: readonly Schema[];
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly required?: readonly string[];
  readonly items?: Schema;
  readonly minimum?: number;
  readonly minLength?: number;
  readonly minItems?: number;
  readonly duration?: boolean;
  readonly dataSource?: "text" | "bytes";
}

/**
 * A config that a package takes: the first of the schema's `examples`, or the smallest value of each field that is required and has
 * no default, again by its own example where it has one. `second`: how a Duration says one second, to `setup` (1000) or in a file.
 */
export function sampleConfig(schema: TSchema | Schema, second: 1000 | "1s" = 1000): unknown {
  return sample(schema as Schema, second);
}

function sample(schema: Schema, second: 1000 | "1s"): unknown {
  if (schema.examples?.[0] !== undefined) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.anyOf !== undefined) return sample(schema.anyOf[0]!, second);
  if (schema.dataSource !== undefined) return { inline_string: "x" };
  switch (schema.type) {
    case "object": {
      const { properties = {}, required = [] } = schema;
      const wanted = required.filter((name) => properties[name]?.default === undefined);
      return Object.fromEntries(
        wanted.map((name) => [name, sample(properties[name] ?? {}, second)]),
      );
    }
    case "array":
      return Array.from({ length: schema.minItems ?? 0 }, () => sample(schema.items ?? {}, second));
    case "number":
    case "integer":
      return schema.duration === true ? second : Math.max(1, schema.minimum ?? 1);
    case "boolean":
      return false;
    default:
      return "x".repeat(Math.max(1, schema.minLength ?? 1));
  }
}
