import { bootstrapSchema } from "./bootstrap.ts";
import { camelCase, type Descriptor, type Field } from "./descriptor.ts";
import type { Registry } from "./registry.ts";
import { type Schema, type Shape, shapeOf } from "./schema.ts";

type Json = Record<string, unknown>;

const TOLD = "known to Envoy, not implemented in tsproxy";
/** Editors show the one as a warning, and the other beside the name. */
const NOT_HERE: Json = { deprecationMessage: TOLD, description: TOLD };
const BOOTSTRAP = "envoy.config.bootstrap.v3.Bootstrap";
/** Nothing is said of what stands there. */
const ANYTHING: Json = {};

/**
 * The part of the JSON Schema that says which fields a config may have: those of Envoy's messages. It stands beside the schemas of
 * the packages, which say what the fields hold. A field that no package takes carries a `deprecationMessage`, which editors show
 * as a warning; one that Envoy lacks is an error.
 */
export class KnownFields {
  readonly #descriptor: Descriptor;
  readonly #registry: Registry;
  readonly #defs: Record<string, Json>;
  /** Names of definitions, by message and shape. */
  readonly #named = new Map<string, Map<Shape, string>>();

  /** Definitions are added to `defs`. */
  constructor(descriptor: Descriptor, registry: Registry, defs: Record<string, Json>) {
    this.#descriptor = descriptor;
    this.#registry = registry;
    this.#defs = defs;
  }

  bootstrap(): Json {
    const root = bootstrapSchema(this.#registry.packages);
    return this.#message(BOOTSTRAP, shapeOf(root, root));
  }

  /** The fields of a message that the schemas of `shape` take. */
  #message(type: string, shape: Shape): Json {
    if (this.#descriptor.message(type) === undefined || isPlain(type)) return ANYTHING;
    let known = this.#named.get(type);
    if (known === undefined) this.#named.set(type, (known = new Map()));
    let name = known.get(shape);
    if (name === undefined) {
      name = `fields of ${type}${known.size === 0 ? "" : ` ${known.size + 1}`}`;
      known.set(shape, name);
      this.#defs[name] = ANYTHING;
      this.#defs[name] =
        shape.extension === undefined ? this.#fields(type, shape) : this.#entry(type, shape);
    }
    return { $ref: `#/$defs/${encodeURIComponent(name)}` };
  }

  /** The shape itself, or that of the service that owns this section of the bootstrap. */
  #owned(shape: Shape): Shape {
    if (shape.section === undefined) return shape;
    const { schema } = this.#registry.packages.find((p) => p.package === shape.section)!;
    return shapeOf(schema as Schema, schema as Schema);
  }

  #fields(type: string, shape: Shape): Json {
    const { fields } = this.#descriptor.message(type)!;
    const properties = Object.fromEntries(
      Object.entries(fields).map(([name, field]) => [name, this.#field(name, field, shape)]),
    );
    return closed(properties);
  }

  #field(name: string, field: Field, shape: Shape): Json {
    // Core reads the whole message, whatever its fields.
    if (shape.dataSource || shape.lua || shape.typed !== undefined) return ANYTHING;
    const { shape: found, open } = shape.field(name);
    if (found === undefined) return open ? ANYTHING : NOT_HERE;
    const inner = this.#owned(found);
    if (field.k !== undefined) {
      const value = inner.field("").shape;
      return value === undefined
        ? ANYTHING
        : { additionalProperties: this.#message(field.t, value) };
    }
    if (field.r === undefined) return this.#message(field.t, inner);
    const item = inner.item(0);
    return item === undefined ? ANYTHING : { items: this.#message(field.t, item) };
  }

  /** An entry for an extension: its own fields, and the config of the package that it names. */
  #entry(type: string, shape: Shape): Json {
    const kind = shape.extension!.extension;
    const { fields } = this.#descriptor.message(type)!;
    const properties: Record<string, Json> = { config: ANYTHING };
    for (const name of Object.keys(fields)) {
      const isTaken = ENTRY_FIELDS.has(name) || shape.hasProperty(name);
      properties[name] = isTaken ? ANYTHING : NOT_HERE;
    }
    const configs = this.#registry.at(kind).flatMap(({ types, package: name, schema }) => {
      const inner = shapeOf(schema as Schema, schema as Schema);
      const typed = types.map((of) =>
        when("@type", `type.googleapis.com/${of}`, this.#message(of, inner)),
      );
      const [own] = types;
      if (own === undefined) return [];
      const short = when("name", name, { properties: { config: this.#message(own, inner) } });
      return [{ properties: { typed_config: { allOf: typed } } }, short];
    });
    return { ...closed(properties), ...(configs.length > 0 && { allOf: configs }) };
  }
}

/** Fields of an entry that core reads. */
const ENTRY_FIELDS = new Set(["name", "typed_config", "config", "is_optional"]);

/** Messages that JSON writes as other things than maps of their fields. */
function isPlain(type: string): boolean {
  return type.startsWith("google.protobuf.") || type.endsWith(".TypedStruct");
}

/** Fields may be written in lowerCamelCase too; editors do not offer that. */
function closed(properties: Record<string, Json>): Json {
  const others = Object.keys(properties).map(camelCase);
  const pattern = `^(?:@type|${others.join("|")})$`;
  return { properties, patternProperties: { [pattern]: {} }, additionalProperties: false };
}

/** `then` applies to maps in which that field has that value. */
function when(field: string, value: string, then: Json): Json {
  return { if: { required: [field], properties: { [field]: { const: value } } }, then };
}
