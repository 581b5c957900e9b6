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

/** What a sample is written for: how a Duration says one second, and a cluster that is there. */
interface Surroundings {
  readonly second: 1000 | "1s";
  readonly cluster: string;
}

/**
 * A config that a package takes: the first of the schema's `examples`, or the smallest value of each field that is required and has
 * no default, again by its own example where it has one. `second`: how a Duration says one second, to `setup` (1000) or in a file.
 * `cluster`: what fields get whose name says that they name a cluster.
 */
export function sampleConfig(
  schema: TSchema | Schema,
  { second = 1000, cluster = "x" }: Partial<Surroundings> = {},
): unknown {
  return sample(schema as Schema, "", { second, cluster });
}

/** `name`: of the field whose value it is. */
function sample(schema: Schema, name: string, around: Surroundings): unknown {
  if (schema.examples?.[0] !== undefined) return schema.examples[0];
  if (schema.const !== undefined) return schema.const;
  if (schema.enum !== undefined) return schema.enum[0];
  if (schema.anyOf !== undefined) return sample(schema.anyOf[0]!, name, around);
  if (schema.dataSource !== undefined) return { inline_string: "x" };
  switch (schema.type) {
    case "object": {
      const { properties = {}, required = [] } = schema;
      const wanted = required.filter((field) => properties[field]?.default === undefined);
      return Object.fromEntries(
        wanted.map((field) => [field, sample(properties[field] ?? {}, field, around)]),
      );
    }
    case "array":
      return Array.from({ length: schema.minItems ?? 0 }, () =>
        sample(schema.items ?? {}, name, around),
      );
    case "number":
    case "integer":
      return schema.duration === true ? around.second : Math.max(1, schema.minimum ?? 1);
    case "boolean":
      return false;
    default:
      if (/cluster(?:s|_name|Name)?$/i.test(name)) return around.cluster;
      return "x".repeat(Math.max(1, schema.minLength ?? 1));
  }
}
