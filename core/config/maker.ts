import type { Place, Report } from "./diagnostic.ts";
import type { Node } from "./document.ts";
import type { Registry } from "./registry.ts";
import type { Schema } from "./schema.ts";

/** What is needed to turn checked values into a RuntimeConfig. */
export interface Maker {
  readonly report: Report;
  readonly registry: Registry;
  /** Builds a schema's value from a node that is not in the user's file, such as an empty one for an absent section. */
  readonly part: (schema: Schema, node: Node) => unknown;
  /** The node that each built object came from. */
  readonly origin: Map<object, Node>;
  /** Answers `file:line:column`. */
  readonly source: (place: Place) => string;
}

/** True if the user wrote that field, even if its value was refused. */
export function written(node: Node, key: string): boolean {
  return node.kind === "map" && node.list(key).length > 0;
}

/** Where the file has that field of a built value; the place of the value itself if the field is absent. */
export function placeOf(maker: Maker, value: object, key: string): Place {
  const node = maker.origin.get(value)!;
  return (node.kind === "map" ? node.get(key)?.place : undefined) ?? node.place;
}
