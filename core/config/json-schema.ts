import type { PackageInfo } from "../protocol.ts";
import { bootstrapSchema } from "./bootstrap.ts";
import { descriptor } from "./descriptor.ts";
import { KnownFields } from "./known-fields.ts";
import { Registry } from "./registry.ts";
import type { Schema } from "./schema.ts";

type Json = Record<string, unknown>;

/**
 * The JSON Schema of configs, for editors, made of the schemas of these packages. It describes what is written in a file, where
 * the packages' own describe what `setup` gets: durations are text, extensions are named.
 */
export function jsonSchema(packages: readonly PackageInfo[]): Json {
  return new SchemaWriter(packages).bootstrap();
}

const DURATION = {
  type: "string",
  pattern: "^[0-9]+(\\.[0-9]{1,9})?s$",
  description: 'seconds: "0.25s"',
};

const DATA_SOURCE = {
  type: "object",
  properties: {
    filename: { type: "string" },
    inline_string: { type: "string" },
    inline_bytes: { type: "string", contentEncoding: "base64" },
    environment_variable: { type: "string" },
  },
};

/** Converts schemas of packages into one JSON Schema; shared parts go into `$defs`. */
class SchemaWriter {
  readonly #registry: Registry;
  readonly #defs: Record<string, Json> = {};

  constructor(packages: readonly PackageInfo[]) {
    this.#registry = new Registry(packages);
  }

  bootstrap(): Json {
    const root = bootstrapSchema(this.#registry.packages);
    const schema = this.#convert(root, "bootstrap");
    const fields = new KnownFields(descriptor(), this.#registry, this.#defs).bootstrap();
    return {
      $schema: "http://json-schema.org/draft-07/schema#",
      title: "tsproxy configuration",
      description: "Envoy's bootstrap, as far as the packages that are there carry it out",
      ...schema,
      allOf: [fields],
      $defs: this.#defs,
    };
  }

  /** Converts a schema. `owner` tells the recursive parts of one package from those of another. */
  #convert(schema: Schema, owner: string): Json {
    if (schema.section !== undefined) return this.#package(schema.section);
    if (schema.perRoute === true) return this.#perRoute();
    if (schema.extension !== undefined) return this.#extension(schema, owner);
    if (schema.duration === true) return described(DURATION, schema);
    if (schema.dataSource !== undefined) return described(DATA_SOURCE, schema);
    if (schema.script !== undefined) return described({ type: "string" }, schema);
    if (schema.lua === true) return described({ anyOf: [DATA_SOURCE, { type: "string" }] }, schema);
    if (schema.typed !== undefined) return this.#typed(schema.typed, owner);
    if (schema.$ref !== undefined) return { $ref: `#/$defs/${pointer(`${owner} ${schema.$ref}`)}` };
    const { $id, ...own } = schema;
    if ($id === undefined) return this.#fields(own, owner);
    const name = `${owner} ${$id}`;
    return this.#define(name, () => this.#fields(own, owner));
  }

  #fields(schema: Schema, owner: string): Json {
    const out: Json = {};
    for (const [key, value] of Object.entries(schema)) {
      if (key === "required" || key === "late" || key === "octal") continue;
      if (key === "properties" || key === "patternProperties")
        out[key] = mapped(value as Record<string, Schema>, (inner) => this.#convert(inner, owner));
      else if (key === "items" || (key === "additionalProperties" && typeof value === "object"))
        out[key] = Array.isArray(value)
          ? value.map((inner) => this.#convert(inner as Schema, owner))
          : this.#convert(value as Schema, owner);
      else if (key === "anyOf" || key === "oneOf" || key === "allOf")
        // oneOf becomes anyOf: a value may fit several of a package's forms, which editors would call an error.
        out[key === "oneOf" ? "anyOf" : key] = (value as readonly Schema[]).map((inner) =>
          this.#convert(inner, owner),
        );
      else out[key] = value;
    }
    // A field with a default need not be written.
    const properties = schema.properties ?? {};
    const required = (schema.required ?? []).filter(
      (name) => properties[name]?.default === undefined,
    );
    if (required.length > 0) out.required = required;
    // Editors read 0600 as YAML 1.2 does: six hundred.
    if (schema.octal === true) out.maximum = Number(schema.maximum!.toString(8));
    return out;
  }

  #define(name: string, make: () => Json): Json {
    if (!(name in this.#defs)) {
      this.#defs[name] = {};
      this.#defs[name] = make();
    }
    return { $ref: `#/$defs/${pointer(name)}` };
  }

  #package(name: string): Json {
    const found = this.#registry.packages.find((p) => p.package === name)!;
    return this.#define(name, () => this.#convert(found.schema as Schema, name));
  }

  /** The entry for an extension of a kind: by type in typed_config, or by name with config. */
  #extension(schema: Schema, owner: string): Json {
    const kind = schema.extension!;
    const entry = this.#define(`a ${kind}`, () => this.#entry(kind));
    if (schema.properties === undefined) return described(entry, schema);
    const { extension: _, ...fields } = schema;
    return { allOf: [entry, this.#fields(fields, owner)] };
  }

  #entry(kind: string): Json {
    const packages = this.#registry.at(kind);
    const types = packages.flatMap((p) => p.types.map((type) => this.#typedBy(type, p)));
    const short = packages.flatMap(({ package: name, name: own, origin }) => {
      const names = origin === "dropped-in" ? [own, name] : [name];
      const properties = { name: { enum: names }, config: this.#package(name) };
      return [{ anyOf: [{ properties }, { properties: { name: { not: properties.name } } }] }];
    });
    return {
      type: "object",
      required: ["name"],
      properties: {
        name: { type: "string", examples: packages.map((p) => p.name) },
        ...(types.length > 0 && { typed_config: { anyOf: [...types, NOT_HERE] } }),
        config: { type: "object" },
        is_optional: { type: "boolean" },
      },
      allOf: short,
    };
  }

  #typedBy(type: string, { package: name }: PackageInfo): Json {
    return {
      type: "object",
      required: ["@type"],
      properties: { "@type": { const: url(type) } },
      allOf: [this.#package(name)],
    };
  }

  #typed(types: Readonly<Record<string, Schema>>, owner: string): Json {
    const one = ([type, schema]: [string, Schema]): Json => ({
      type: "object",
      required: ["@type"],
      properties: { "@type": { const: url(type) } },
      allOf: [this.#convert(schema, owner)],
    });
    return { anyOf: Object.entries(types).map(one) };
  }

  #perRoute(): Json {
    return this.#define("an entry of typed_per_filter_config", () => {
      const packages = this.#registry.packages.filter(
        (p) => p.kind === "http" && p.routeSchema !== undefined && p.routeSchema !== null,
      );
      const own = packages.map((p) =>
        this.#define(`${p.package} of a route`, () =>
          this.#convert(p.routeSchema as Schema, `${p.package} of a route`),
        ),
      );
      return { type: "object", anyOf: [...own, { type: "object" }] };
    });
  }
}

/** A TypedStruct, which editors accept as it is: the proxy checks the type inside it. */
const NOT_HERE = {
  type: "object",
  required: ["@type"],
  properties: {
    "@type": { enum: [url("xds.type.v3.TypedStruct"), url("udpa.type.v1.TypedStruct")] },
  },
};

function url(type: string): string {
  return `type.googleapis.com/${type}`;
}

function described(made: Json, schema: Schema): Json {
  const { default: value } = schema;
  const { description } = schema as { readonly description?: string };
  if (description === undefined && value === undefined) return made;
  const shown = made.pattern === DURATION.pattern && typeof value === "number";
  return {
    ...made,
    ...(description !== undefined && { description }),
    ...(value !== undefined && { default: shown ? `${(value as number) / 1000}s` : value }),
  };
}

function mapped<T>(fields: Readonly<Record<string, T>>, f: (value: T) => unknown): Json {
  return Object.fromEntries(Object.entries(fields).map(([name, value]) => [name, f(value)]));
}

function pointer(name: string): string {
  return encodeURIComponent(name.replaceAll("~", "~0").replaceAll("/", "~1"));
}
