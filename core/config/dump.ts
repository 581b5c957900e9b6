import type { Descriptor, Field } from "./descriptor.ts";
import { define, type MapNode, type Node, plain } from "./document.ts";

/**
 * What Envoy's config_dump prints of a normalised tree: fields by their numbers, and none that holds its default, unless its
 * message tells "default" from "absent" (members of oneofs, wrappers). Each field of the root is made anew when it is read: to
 * dump a large file takes as long as to load it.
 */
export function dumpedFields(descriptor: Descriptor, root: MapNode): object {
  const out = {};
  for (const [key, value] of fieldsOf(descriptor, root))
    Object.defineProperty(out, key, { get: () => dumped(descriptor, value), enumerable: true });
  return out;
}

function dumped(descriptor: Descriptor, node: Node): unknown {
  if (node.kind === "scalar") return plain(node, true);
  if (node.kind === "list") return node.items.map((item) => dumped(descriptor, item));
  const out: Record<string, unknown> = {};
  for (const [key, value] of fieldsOf(descriptor, node))
    define(out, key, dumped(descriptor, value));
  return out;
}

/** The fields of a map that a dump shows, in its order. What is no message of Envoy's stays as it is. */
function fieldsOf(descriptor: Descriptor, node: MapNode): readonly (readonly [string, Node])[] {
  const { entries } = node;
  const fields = descriptor.message(node.message ?? "")?.fields;
  const all = [...entries].map(([key, { value }]) => [key, value] as const);
  if (fields === undefined) return all;
  // "@type" stands first, as it does in the tree.
  const numberOf = (key: string): number =>
    Object.hasOwn(fields, key) ? fields[key]!.n || Number.MAX_SAFE_INTEGER : 0;
  return all
    .filter(([key, value]) => !Object.hasOwn(fields, key) || says(descriptor, fields[key]!, value))
    .sort(([a], [b]) => numberOf(a) - numberOf(b));
}

/** True if the value is one that goes over the wire: protobuf has no other than the default for a field that is absent. */
function says(descriptor: Descriptor, field: Field, node: Node): boolean {
  if (node.kind === "list") return node.items.length > 0;
  if (node.kind === "map") return field.k === undefined || node.entries.size > 0;
  if (field.o !== undefined || field.p === 1) return true;
  const { value } = node;
  if (field.e === 1)
    return typeof value === "string" ? descriptor.enum(field.t)?.[value] !== 0 : value !== 0;
  if (field.t.includes(".")) return true;
  if (field.t === "string" || field.t === "bytes") return value !== "";
  // Numbers of 64 bits may be text.
  return value !== undefined && Number(value) !== 0;
}
