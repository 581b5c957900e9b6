import type { TSchema } from "@sinclair/typebox";

/**
 * A config that a package takes, as `setup` gets it: the first of the schema's `examples`, or the smallest value of each field that
 * is required and has no default, again by its own example where it has one.
 */
export function sampleConfig(schema: TSchema): unknown {
  if (schema.examples?.[0] !== undefined) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.anyOf !== undefined) return sampleConfig(schema.anyOf[0]);
  if (schema.dataSource === true) return { inline_string: "x" };
  switch (schema.type) {
    case "object": {
      const fields = Object.entries((schema.properties ?? {}) as Record<string, TSchema>);
      const wanted = fields.filter(
        ([name, field]) => schema.required?.includes(name) === true && field.default === undefined,
      );
      return Object.fromEntries(wanted.map(([name, field]) => [name, sampleConfig(field)]));
    }
    case "array":
      return Array.from({ length: schema.minItems ?? 0 }, () => sampleConfig(schema.items));
    case "number":
    case "integer":
      return schema.duration === true ? 1000 : Math.max(1, schema.minimum ?? 1);
    case "boolean":
      return false;
    default:
      return "x".repeat(Math.max(1, schema.minLength ?? 1));
  }
}
