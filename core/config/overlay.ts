import { descriptor, type Field } from "./descriptor.ts";
import { isNull, ListNode, MapNode, type Node } from "./document.ts";
import { Fields } from "./fields.ts";

/** A config text beside the file, which is merged over it. */
export interface Overlay {
  /** For messages: `--config-yaml`. */
  readonly name: string;
  readonly text: string;
}

/**
 * Merges two messages of a type as protobuf does: values are replaced, lists lengthened, messages merged. A member of a oneof takes
 * the place of the others, what a map or a Struct has under a key is replaced as a whole, and a field that is null, or empty where
 * protobuf cannot tell that from absent, leaves the one below it.
 */
export function merge(base: Node, over: Node, type: string): Node {
  if (base.kind !== "map" || over.kind !== "map") return over;
  // An Any is replaced as a whole.
  if (base.has("@type") || over.has("@type")) return over;
  const messages = descriptor();
  const fields = messages.message(type)?.fields ?? {};
  const nameOf = (key: string) => messages.fieldName(type, key) ?? key;
  const merged = new MapNode(base.place, Fields.of(base.entries));
  const keys = new Map([...base.entries].map(([key]) => [nameOf(key), key]));
  for (const [key, { place, value }] of over.entries) {
    const name = nameOf(key);
    const field = fields[name];
    const known = keys.get(name);
    const below = known === undefined ? undefined : merged.get(known);
    if (below !== undefined && leaves(field, value)) continue;
    if (field?.o !== undefined)
      for (const [other, otherKey] of keys)
        if (other !== name && fields[other]?.o === field.o) merged.delete(otherKey);
    merged.set(known ?? key, below ? mergeField(below, value, field) : value, place);
  }
  return merged;
}

function mergeField(base: Node, over: Node, field: Field | undefined): Node {
  if (base.kind === "list" && over.kind === "list")
    return new ListNode(base.place, [...base.items, ...over.items]);
  const isMap = field?.k !== undefined || field?.t === "google.protobuf.Struct";
  if (isMap && base.kind === "map" && over.kind === "map") {
    const entries = [...base.entries, ...over.entries];
    const merged = new MapNode(base.place, Fields.of([]));
    for (const [key, { place, value }] of entries) merged.set(key, value, place);
    return merged;
  }
  return merge(base, over, field?.t ?? "");
}

/** Whether a value leaves what stands below it: it is as good as absent. */
function leaves(field: Field | undefined, value: Node): boolean {
  if (value.kind !== "scalar") return false;
  if (isNull(value)) return field?.t !== "google.protobuf.Value";
  if (field === undefined || field.p === 1 || field.o !== undefined || field.t.includes("."))
    return false;
  return value.value === "" || value.value === 0 || value.value === false;
}
