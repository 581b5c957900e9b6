import type { MapNode } from "./document.ts";
import type { Fields } from "./fields.ts";

/** Lists whose entries stay unread in a large file: a route table may have a hundred thousand. */
export const LONG_LISTS: ReadonlySet<string> = new Set(["virtual_hosts", "routes"]);
/** In smaller files nothing is left unread. */
export const LARGE_CHARS = 250_000;

/** What no unread map has: old forms, which are searched for all through a file, types of extensions, keys with escapes. */
export const NEEDS_READING =
  /\\u|"(?:@type|type_url|config|cors|hosts|tls_context|use_websocket|per_filter_config|deprecated_v1|sni_domains)"/;

/**
 * A map of a large JSON file before it becomes nodes: to make those, and to walk them, takes most of the time that a large file
 * needs. If it is written as protobuf would write it (canonical.ts), its plain value becomes the config; only messages and dumps
 * still need the nodes.
 */
export class Unread {
  /** How many fields it and the maps within it have, those that are written twice counted twice. */
  readonly fields: number;
  /** Makes the entries, with their places. */
  readonly read: () => Fields;
  /** Set once the map is known to be in canonical form: for entries that are read after all. */
  normalise: ((map: MapNode) => void) | undefined = undefined;
  readonly value: object;
  #taken = false;

  constructor(value: object, fields: number, read: () => Fields) {
    this.value = value;
    this.fields = fields;
    this.read = read;
  }

  /** Its value, to be changed and kept. Undefined: somebody has it already. */
  take(): object | undefined {
    if (this.#taken) return undefined;
    this.#taken = true;
    return this.value;
  }
}
