import type { Static, TSchema } from "@sinclair/typebox";
import { Value } from "@sinclair/typebox/value";

/** The config as core would hand it to `setup`: the schema's defaults filled in. Nothing is checked. */
export function withDefaults<S extends TSchema>(schema: S, config: unknown): Static<S> {
  const value = Value.Default(schema, JSON.parse(JSON.stringify(config)));
  fillTyped(schema, value, schema);
  return value as Static<S>;
}

/** Does what TypeBox does not: `Typed` messages get their defaults, a DataSource its text, long lists become LateLists. */
function fillTyped(schema: TSchema, value: unknown, root: TSchema): void {
  if (typeof value !== "object" || value === null) return;
  const fields = value as Record<string, unknown>;
  const { typed, properties, patternProperties, items, $ref } = schema;
  const target = $ref === undefined ? undefined : findId(root, $ref);
  if (target !== undefined) fillTyped(target, value, root);
  if (schema.lua === true && "inline_string" in fields) {
    fields.text = fields.inline_string;
    fields.modules ??= {};
  }
  if (schema.dataSource !== undefined && "inline_string" in fields)
    fields.text = fields.inline_string;
  if (typed !== undefined) {
    const url = String(fields["@type"] ?? "");
    const type = url.slice(url.lastIndexOf("/") + 1);
    const inner = typed[type];
    if (inner !== undefined) fillMessage(inner, fields, type, root);
  }
  for (const [key, field] of Object.entries(fields)) {
    const patterns = Object.values(patternProperties ?? {}) as TSchema[];
    const inner = properties?.[key] ?? patterns[0] ?? items;
    if (inner === undefined) continue;
    fillTyped(inner, field, root);
    if (inner.late === true && Array.isArray(field)) fields[key] = { entries: field };
  }
}

/** Fills in a `Typed` message. Its schema may refer to schemas defined around it. */
function fillMessage(
  message: TSchema,
  fields: Record<string, unknown>,
  type: string,
  root: TSchema,
): void {
  const filled = Value.Default(message, identified(root), fields) as object;
  fillTyped(message, filled, root);
  Object.assign(fields, filled, { "@type": type });
}

/** All schemas with an `$id`, this one or within it. */
function identified(schema: unknown): TSchema[] {
  if (typeof schema !== "object" || schema === null) return [];
  const own = (schema as TSchema).$id === undefined ? [] : [schema as TSchema];
  return [...own, ...Object.values(schema).flatMap(identified)];
}

/** The schema with that `$id`, this one or within it; undefined: there is none. */
function findId(schema: unknown, id: string): TSchema | undefined {
  if (typeof schema !== "object" || schema === null) return undefined;
  if ((schema as TSchema).$id === id) return schema as TSchema;
  for (const part of Object.values(schema)) {
    const found = findId(part, id);
    if (found !== undefined) return found;
  }
  return undefined;
}
