/** JSON Schema as TypeBox writes it, with the SDK's own keywords. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: { readonly [name: string]: Schema };
  readonly patternProperties?: { readonly [pattern: string]: Schema };
  readonly additionalProperties?: boolean | Schema;
  readonly required?: readonly string[];
  readonly items?: Schema | readonly Schema[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly $ref?: string;
  readonly $id?: string;
  /** The kind of extension that stands here. */
  readonly extension?: string;
  /** An entry of `typed_per_filter_config`. */
  readonly perRoute?: boolean;
  /** An Any of one of these messages: name -> schema of its fields. */
  readonly typed?: { readonly [type: string]: Schema };
  /** A DataSource, of which packages get the text. */
  readonly dataSource?: boolean;
  /** Text of a script; packages get a ScriptSource. */
  readonly script?: "module" | "body" | "file";
  /** A protobuf Duration. */
  readonly duration?: boolean;
  /** Core's own: the section of the bootstrap that this package owns. */
  readonly section?: string;
  readonly default?: unknown;
}

/** All that may apply to a value: unions and intersections taken apart, references followed. */
export function alternatives(schema: Schema, root: Schema, depth = 0): readonly Schema[] {
  if (depth > 20) return [];
  if (schema.$ref !== undefined) {
    const target = resolve(root, schema.$ref);
    return target === undefined ? [] : alternatives(target, root, depth + 1);
  }
  const parts = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  if (parts.length === 0) return [schema];
  const inner = parts.flatMap((part) => alternatives(part, root, depth + 1));
  return schema.properties === undefined ? inner : [schema, ...inner];
}

function resolve(root: Schema, ref: string): Schema | undefined {
  if (ref === "#") return root;
  if (!ref.startsWith("#/")) return findId(root, ref, 0);
  let at: unknown = root;
  for (const part of ref.slice(2).split("/"))
    at = (at as Record<string, unknown> | undefined)?.[
      part.replaceAll("~1", "/").replaceAll("~0", "~")
    ];
  return at as Schema | undefined;
}

function findId(schema: unknown, id: string, depth: number): Schema | undefined {
  if (typeof schema !== "object" || schema === null || depth > 50) return undefined;
  if ((schema as Schema).$id === id) return schema as Schema;
  for (const part of Object.values(schema)) {
    const found = findId(part, id, depth + 1);
    if (found !== undefined) return found;
  }
  return undefined;
}

/** The schema of a field, for maps that have one; `open` takes every field as it is. */
export function fieldSchemas(
  schemas: readonly Schema[],
  name: string,
): { readonly found: readonly Schema[]; readonly open: boolean } {
  const found: Schema[] = [];
  let open = false;
  for (const schema of schemas) {
    if (schema.properties !== undefined && Object.hasOwn(schema.properties, name))
      found.push(schema.properties[name]!);
    for (const [pattern, value] of Object.entries(schema.patternProperties ?? {}))
      if (regex(pattern).test(name)) found.push(value);
    const rest = schema.additionalProperties;
    if (typeof rest === "object") found.push(rest);
    else if (rest === true || isOpen(schema)) open = true;
  }
  return { found, open: open && found.length === 0 };
}

const regexes = new Map<string, RegExp>();

function regex(pattern: string): RegExp {
  let found = regexes.get(pattern);
  if (found === undefined) regexes.set(pattern, (found = new RegExp(pattern, "u")));
  return found;
}

function isOpen(schema: Schema): boolean {
  if (schema.properties !== undefined || schema.patternProperties !== undefined) return false;
  return schema.type === undefined || schema.type === "object";
}

export function isType(schemas: readonly Schema[], type: string): boolean {
  return schemas.some((s) => (Array.isArray(s.type) ? s.type.includes(type) : s.type === type));
}

/** Words that an enum or a union of literals allows; undefined if it is none. */
export function allowedWords(schemas: readonly Schema[]): readonly string[] | undefined {
  const words = schemas.flatMap((s) => s.enum ?? (s.const === undefined ? [] : [s.const]));
  const strings = words.filter((w) => typeof w === "string");
  return strings.length > 0 ? strings : undefined;
}
