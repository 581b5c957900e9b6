/** JSON Schema as TypeBox writes it, with the SDK's own keywords. */
export interface Schema {
  readonly type?: string | readonly string[];
  readonly properties?: { readonly [name: string]: Schema };
  readonly patternProperties?: { readonly [pattern: string]: Schema };
  readonly additionalProperties?: boolean | Schema;
  readonly required?: readonly string[];
  readonly items?: Schema | readonly Schema[];
  readonly additionalItems?: boolean | Schema;
  readonly contains?: Schema;
  readonly propertyNames?: Schema;
  readonly dependencies?: { readonly [name: string]: readonly string[] | Schema };
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly allOf?: readonly Schema[];
  readonly not?: Schema;
  readonly if?: Schema;
  readonly then?: Schema;
  readonly else?: Schema;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly exclusiveMinimum?: number;
  readonly exclusiveMaximum?: number;
  readonly multipleOf?: number;
  readonly minLength?: number;
  readonly maxLength?: number;
  readonly pattern?: string;
  readonly minItems?: number;
  readonly maxItems?: number;
  readonly uniqueItems?: boolean;
  readonly minProperties?: number;
  readonly maxProperties?: number;
  readonly $ref?: string;
  readonly $id?: string;
  /** The kind of extension that stands here, as an entry with name and config. */
  readonly extension?: string;
  /** An entry of `typed_per_filter_config`. */
  readonly perRoute?: boolean;
  /** An Any of one of these messages: name -> schema of its fields. */
  readonly typed?: { readonly [type: string]: Schema };
  /** A DataSource; packages get its text, or, if it may hold any bytes, what is no text in base64. */
  readonly dataSource?: "text" | "bytes";
  /** The path of a file that is written. */
  readonly outputFile?: boolean;
  /** A Lua script; packages get a LuaSource. */
  readonly lua?: boolean;
  /** Text of a script; packages get a ScriptSource. */
  readonly script?: "module" | "body" | "file";
  /** A protobuf Duration. */
  readonly duration?: boolean;
  /** A list that packages get as a LateList. */
  readonly late?: boolean;
  /**
   * A list in order of preference: the first entry whose `typed_extension_config` is implemented here is taken, the others are
   * left out.
   */
  readonly preference?: boolean;
  /** Core's own: a number that is mostly written in octal, as 0600. */
  readonly octal?: boolean;
  /** Core's own: the section of the bootstrap that this package owns. */
  readonly section?: string;
  readonly default?: unknown;
}

/** What the schemas of a map say of one key. */
export interface FieldShape {
  /** Undefined: no schema lists it. */
  readonly shape: Shape | undefined;
  /** True: no schema lists the key, and it is accepted as it is. */
  readonly open: boolean;
  readonly perRoute: boolean;
}

/**
 * All that may stand at one place: the alternatives of a schema, with unions and intersections taken apart and references
 * resolved. Made once for each place in a schema, since a config may have a hundred thousand values there.
 */
export class Shape {
  readonly schemas: readonly Schema[];
  readonly root: Schema;
  readonly extension: (Schema & { readonly extension: string }) | undefined;
  readonly section: string | undefined;
  readonly typed: Schema["typed"];
  readonly script: Schema["script"];
  readonly dataSource: Schema["dataSource"];
  readonly outputFile: boolean;
  readonly lua: boolean;
  readonly duration: boolean;
  /** True: a lone value stands for a list of one. */
  readonly list: boolean;
  readonly preference: boolean;
  /** Words that an enum or a union of literals allows; undefined if it is none. */
  readonly words: readonly string[] | undefined;
  readonly #fields = new Map<string, FieldShape>();

  constructor(schemas: readonly Schema[], root: Schema) {
    this.schemas = schemas;
    this.root = root;
    const isExtension = (s: Schema): s is Schema & { readonly extension: string } =>
      s.extension !== undefined;
    this.extension = schemas.find(isExtension);
    this.section = schemas.find((s) => s.section !== undefined)?.section;
    this.typed = schemas.find((s) => s.typed !== undefined)?.typed;
    this.script = schemas.find((s) => s.script !== undefined)?.script;
    this.dataSource = schemas.find((s) => s.dataSource !== undefined)?.dataSource;
    this.outputFile = schemas.some((s) => s.outputFile === true);
    this.lua = schemas.some((s) => s.lua === true);
    this.duration = schemas.some((s) => s.duration === true);
    this.list = this.isType("array") && !this.isType("string");
    this.preference = schemas.some((s) => s.preference === true);
    const words = schemas.flatMap((s) => s.enum ?? (s.const === undefined ? [] : [s.const]));
    const strings = words.filter((w) => typeof w === "string");
    this.words = strings.length > 0 ? strings : undefined;
  }

  isType(type: string): boolean {
    return this.schemas.some((s) =>
      Array.isArray(s.type) ? s.type.includes(type) : s.type === type,
    );
  }
  hasProperty(name: string): boolean {
    return this.schemas.some(
      (s) => s.properties !== undefined && Object.hasOwn(s.properties, name),
    );
  }
  get properties(): string[] {
    return this.schemas.flatMap((s) => Object.keys(s.properties ?? {}));
  }

  /** The shape of the nth entry of a list. Undefined: any value is allowed. */
  item(n: number): Shape | undefined {
    const items = this.schemas.find((s) => s.items !== undefined)?.items;
    const schema = Array.isArray(items)
      ? (items as readonly Schema[])[n]
      : (items as Schema | undefined);
    return schema && shapeOf(schema, this.root);
  }

  field(name: string): FieldShape {
    let field = this.#fields.get(name);
    if (field !== undefined) return field;
    field = this.#fieldOf(name);
    // Not for names that the user chooses: there may be any number of them.
    if (this.hasProperty(name)) this.#fields.set(name, field);
    return field;
  }

  #fieldOf(name: string): FieldShape {
    const found: Schema[] = [];
    let open = false;
    for (const schema of this.schemas) {
      if (schema.properties !== undefined && Object.hasOwn(schema.properties, name))
        found.push(schema.properties[name]!);
      for (const [pattern, value] of Object.entries(schema.patternProperties ?? {}))
        if (regex(pattern).test(name)) found.push(value);
      const rest = schema.additionalProperties;
      if (typeof rest === "object") found.push(rest);
      else if (rest === true || isOpen(schema)) open = true;
    }
    if (found.length === 0) return { shape: undefined, open, perRoute: false };
    const [only] = found;
    const shape =
      found.length === 1
        ? shapeOf(only!, this.root)
        : new Shape(
            found.flatMap((s) => alternatives(s, this.root)),
            this.root,
          );
    return { shape, open: false, perRoute: found.some((s) => s.perRoute === true) };
  }
}

const shapes = new WeakMap<Schema, WeakMap<Schema, Shape>>();

/** The shape of a schema within its root; kept for the next call. */
export function shapeOf(schema: Schema, root: Schema): Shape {
  let known = shapes.get(root);
  if (known === undefined) shapes.set(root, (known = new WeakMap()));
  let shape = known.get(schema);
  if (shape === undefined) known.set(schema, (shape = new Shape(alternatives(schema, root), root)));
  return shape;
}

function alternatives(schema: Schema, root: Schema, depth = 0): readonly Schema[] {
  if (depth > 20) return [];
  if (schema.$ref !== undefined) {
    const found = target(root, schema.$ref);
    return found === undefined ? [] : alternatives(found, root, depth + 1);
  }
  const parts = [...(schema.anyOf ?? []), ...(schema.oneOf ?? []), ...(schema.allOf ?? [])];
  if (parts.length === 0) return [schema];
  const inner = parts.flatMap((part) => alternatives(part, root, depth + 1));
  return schema.properties === undefined ? inner : [schema, ...inner];
}

/**
 * Resolves a reference. Undefined: it leads nowhere. A schema that stands in several places of `root` has its `$id` in each; any
 * of them will do.
 */
export function target(root: Schema, ref: string): Schema | undefined {
  if (ref === "#") return root;
  if (!ref.startsWith("#/")) return idsOf(root).get(ref);
  let at: unknown = root;
  for (const part of ref.slice(2).split("/"))
    at = (at as Record<string, unknown> | undefined)?.[
      part.replaceAll("~1", "/").replaceAll("~0", "~")
    ];
  return at as Schema | undefined;
}

const ids = new WeakMap<Schema, ReadonlyMap<string, Schema>>();

function idsOf(root: Schema): ReadonlyMap<string, Schema> {
  let known = ids.get(root);
  if (known === undefined) {
    const found = new Map<string, Schema>();
    gatherIds(root, found, 0);
    ids.set(root, (known = found));
  }
  return known;
}

function gatherIds(schema: unknown, found: Map<string, Schema>, depth: number): void {
  if (typeof schema !== "object" || schema === null || depth > 50) return;
  const { $id } = schema as Schema;
  if (typeof $id === "string" && !found.has($id)) found.set($id, schema as Schema);
  for (const part of Object.values(schema)) gatherIds(part, found, depth + 1);
}

const regexes = new Map<string, RegExp>();

/** The pattern, compiled once. */
export function regex(pattern: string): RegExp {
  let found = regexes.get(pattern);
  if (found === undefined) regexes.set(pattern, (found = new RegExp(pattern, "u")));
  return found;
}

/** True for a schema of maps that lists no properties, and so allows any. */
function isOpen(schema: Schema): boolean {
  if (schema.properties !== undefined || schema.patternProperties !== undefined) return false;
  return schema.type === undefined || schema.type === "object";
}
