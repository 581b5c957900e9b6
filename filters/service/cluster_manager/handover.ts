import type { Clusters, Connection, ConnectionHandler } from "@tsproxy/sdk";
import type { HostRecord } from "./cluster-health.ts";
import type { Load } from "./host.ts";
import type { ConnectionFacts } from "./pooled-connection.ts";

/**
 * What one generation of this package hands over to the next. The next may be different code, so an estate has no objects of
 * this package's classes: only plain data, functions, the SDK's Connection, and codecs that can be adopted.
 *
 *   setup of the new:   estate.heir = …           both exist, the old one serves; if the new one is dropped, heir is unset
 *   end of the old:     estate.surrender(heir)    sockets are handed to the new generation
 *   later:              heir.takeIdle(…)          for connections that were busy then, when they become idle
 *
 * A busy connection stays with the code that began its exchange until that ends; only its socket belongs to the heir.
 */
export interface Estate {
  readonly version: typeof VERSION;
  /** Fingerprint of each cluster's config; if it is unchanged, the new generation takes over the cluster's state. */
  fingerprints: Map<string, string>;
  /** Host ids and priorities of each cluster, as last counted in `membership_change`. */
  members: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Names of hosts that have stats cells on this worker. */
  readonly hostNames: Set<string>;
  heir: Heir | undefined;
  load(cluster: string, host: string): Load | undefined;
  /** Health state of a cluster's hosts, by host id. */
  health(cluster: string): ReadonlyMap<string, HostRecord> | undefined;
  /** Publishes hosts again, as a dropped generation may have published others. */
  republish(): void;
  /** Hands sockets to the heir; called again with the heir's heir while old connections are open. */
  surrender(heir: Heir): void;
  /** Number of open sockets that this generation still uses. */
  open(): number;
  /** Earlier generations that still have open sockets. */
  ancestors(): readonly Estate[];
  /** Frees all references when the generation has finished, as contexts keep the estate that they were given. */
  release(): void;
}

/** The interface of a generation to the one that it replaces. */
export interface Heir {
  readonly clusters: Clusters;
  /** Called when this generation takes over service. */
  begin(): void;
  adopt(connection: Connection, handler: ConnectionHandler): void;
  /** Takes an idle connection; false: not taken, it stays with the caller. */
  takeIdle(cluster: string, host: string, facts: ConnectionFacts): boolean;
  fingerprint(cluster: string): string | undefined;
}

/** To be incremented when a field here changes its meaning; estates of other versions are not taken over. */
export const VERSION = 4;

const prints = new WeakMap<object, string>();

/** Identifies a config by a 64-bit hash and the length of its JSON. */
export function fingerprintOf(config: object): string {
  let print = prints.get(config);
  if (print === undefined) {
    const text = JSON.stringify(config);
    let a = 0x9e3779b1;
    let b = 0x85ebca77;
    for (let k = 0; k < text.length; k++) {
      const code = text.charCodeAt(k);
      a = Math.imul(a ^ code, 0x85ebca6b);
      b = Math.imul(b ^ code, 0xc2b2ae35);
    }
    a = Math.imul(a ^ (a >>> 15), 0xc2b2ae35) ^ (b >>> 13);
    b = Math.imul(b ^ (b >>> 15), 0x27d4eb2f) ^ (a >>> 16);
    print = `${(b >>> 0).toString(36)}${(a >>> 0).toString(36)}-${text.length}`;
    prints.set(config, print);
  }
  return print;
}

/** The previous generation's estate; undefined if there is none or it has another version. */
export function estateOf(previous: unknown): Estate | undefined {
  const estate = previous as Estate | undefined;
  return estate?.version === VERSION ? estate : undefined;
}
