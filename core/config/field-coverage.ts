import type { PackageInfo } from "../protocol.ts";
import { bootstrapSchema } from "./bootstrap.ts";
import type { Descriptor } from "./descriptor.ts";
import { type Schema, type Shape, shapeOf } from "./schema.ts";

export interface PackageCoverage {
  readonly package: string;
  /** The protobuf messages that its config is made of. */
  readonly messages: readonly string[];
  /** `message.field` for each field of those messages that the schema lists. */
  readonly implemented: readonly string[];
  readonly missing: readonly string[];
  /** Fields of its schema that Envoy's message lacks. */
  readonly own: readonly string[];
}

/** How much of Envoy's messages each package's schema lists. Deprecated fields do not count. */
export function fieldCoverage(
  packages: readonly PackageInfo[],
  descriptor: Descriptor,
): PackageCoverage[] {
  const bootstrap = new Walk(descriptor);
  const core = bootstrapSchema(packages);
  bootstrap.message("envoy.config.bootstrap.v3.Bootstrap", shapeOf(core, core));
  const all = [bootstrap.coverage("core")];
  for (const info of packages) {
    const walk = new Walk(descriptor);
    for (const [message, schema] of rootsOf(info, packages, descriptor))
      walk.message(message, rootShape(schema));
    if (walk.messages.length > 0) all.push(walk.coverage(info.package));
  }
  return all;
}

/** The messages that a package is configured by, and its schema for each. */
function rootsOf(
  info: PackageInfo,
  packages: readonly PackageInfo[],
  descriptor: Descriptor,
): (readonly [message: string, schema: Schema])[] {
  const schema = info.schema as Schema;
  // Envoy's cluster types have their fields in Cluster itself, so a field counts if any cluster package takes it.
  if (info.section === "static_resources.clusters")
    return [info, ...packages.filter(({ kind }) => kind === "cluster")]
      .filter(({ types }) => types.length === 0)
      .map((one) => ["envoy.config.cluster.v3.Cluster", one.schema as Schema] as const);
  if (info.types.length === 0) return [];
  const roots = info.types
    .filter((type) => descriptor.message(type) !== undefined)
    .map((type) => [type, schema] as const);
  const [first] = roots;
  const perRoute =
    first && descriptor.siblings(first[0]).find((name) => /PerRoute(Config)?$/.test(name));
  if (perRoute === undefined || info.routeSchema === undefined) return roots;
  return [...roots, [perRoute, info.routeSchema as Schema]];
}

/** The shape of one message: the config of a section may be a list of them. */
function rootShape(schema: Schema): Shape {
  const shape = shapeOf(schema, schema);
  return shape.item(0) ?? shape;
}

/** Walks messages and schemas in parallel, and notes which fields the schemas list. */
class Walk {
  readonly messages: string[] = [];
  readonly #descriptor: Descriptor;
  readonly #fields = new Map<string, boolean>();
  readonly #own = new Set<string>();
  readonly #seen = new Map<string, Set<Shape>>();

  constructor(descriptor: Descriptor) {
    this.#descriptor = descriptor;
  }

  /** Walks one message. `shape`: what the schema says of its fields. */
  message(type: string, shape: Shape): void {
    const message = this.#descriptor.message(type);
    if (message === undefined || type.startsWith("google.")) return;
    let seen = this.#seen.get(type);
    if (seen === undefined) this.#seen.set(type, (seen = new Set()));
    if (seen.has(shape)) return;
    seen.add(shape);
    if (!this.messages.includes(type)) this.messages.push(type);
    for (const [name, field] of Object.entries(message.fields)) {
      if (field.d === 1) continue;
      const { shape: inner, open } = shape.field(name);
      const key = `${type}.${name}`;
      const isThere = inner !== undefined || open;
      this.#fields.set(key, isThere || this.#fields.get(key) === true);
      if (inner === undefined || field.e === 1) continue;
      const value =
        field.r === 1 ? inner.item(0) : field.k !== undefined ? mapValueOf(inner) : inner;
      if (value !== undefined && isMap(value)) this.message(field.t, value);
    }
    for (const name of shape.properties)
      if (!Object.hasOwn(message.fields, name)) this.#own.add(`${type}.${name}`);
  }

  coverage(name: string): PackageCoverage {
    const fields = [...this.#fields];
    return {
      package: name,
      messages: this.messages,
      implemented: fields.filter(([, isThere]) => isThere).map(([field]) => field),
      missing: fields.filter(([, isThere]) => !isThere).map(([field]) => field),
      own: [...this.#own],
    };
  }
}

/** The shape of the values of a protobuf map. */
function mapValueOf(map: Shape): Shape | undefined {
  return map.field("any").shape;
}

/** True if this schema itself lists fields: those of an extension, a section or a text are described elsewhere. */
function isMap(shape: Shape): boolean {
  return (
    shape.extension === undefined &&
    shape.section === undefined &&
    shape.typed === undefined &&
    shape.script === undefined &&
    !shape.dataSource &&
    !shape.duration &&
    shape.properties.length > 0
  );
}
