import { ListNode, MapNode, type Node } from "./document.ts";
import { Fields } from "./fields.ts";

/** A config text beside the file, which is merged over it. */
export interface Overlay {
  /** For messages: `--config-yaml`. */
  readonly name: string;
  readonly text: string;
}

/** Merges as protobuf merges messages: values are replaced, lists are lengthened, messages are merged. */
export function merge(base: Node, over: Node): Node {
  if (base.kind === "list" && over.kind === "list")
    return new ListNode(base.place, [...base.items, ...over.items]);
  if (base.kind !== "map" || over.kind !== "map") return over;
  // An Any is replaced as a whole.
  if (base.has("@type") || over.has("@type")) return over;
  const merged = new MapNode(base.place, Fields.of(base.entries));
  for (const [key, { place, value }] of over.entries) {
    const known = merged.get(key);
    merged.set(key, known === undefined ? value : merge(known, value), place);
  }
  return merged;
}
