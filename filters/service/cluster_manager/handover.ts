import type { Clusters, Connection, ConnectionHandler } from "@tsproxy/sdk";
import type { HostRecord } from "./cluster-health.ts";
import type { Load } from "./host.ts";
import type { ConnectionFacts } from "./pooled-connection.ts";

/**
 * What one generation of this package leaves to the next. The next may be other code, so there is nothing of a class in here:
 * plain data, functions, the SDK's own Connection, and codecs that the SDK says can be adopted.
 *
 *   setup of the new:   estate.heir = …           both live, the old one serves; if the new one is dropped, heir is unset
 *   end of the old:     estate.surrender(heir)    sockets go over to the new generation
 *   later:              heir.takeIdle(…)          a connection that was busy then has become idle
 *
 * Busy connections stay with the code that began their exchange until it ends; only their sockets' life is the heir's.
 */
export interface Estate {
  readonly version: typeof VERSION;
  /** Of the config of each cluster: the same one is the same cluster. */
  fingerprints: ReadonlyMap<string, string>;
  /** Ids of the hosts of each cluster, and their priorities, as last counted in `membership_change`. */
  members: ReadonlyMap<string, ReadonlyMap<string, number>>;
  /** Names of hosts that have cells on this worker. */
  readonly hostNames: Set<string>;
  heir: Heir | undefined;
  load(cluster: string, host: string): Load | undefined;
  /** What is known of the health of a cluster's hosts, by id. */
  health(cluster: string): ReadonlyMap<string, HostRecord> | undefined;
  /** Publishes hosts again: a generation that was dropped may have published others over them. */
  republish(): void;
  /** May come again, with the heir's own heir. */
  surrender(heir: Heir): void;
  /** Sockets that this generation opened and has not finished with. */
  open(): number;
  /** Generations before this one that have not finished. */
  ancestors(): readonly Estate[];
  /** It has finished: forgets everything, for contexts hold on to what they were handed. */
  release(): void;
}

export interface Heir {
  readonly clusters: Clusters;
  /** It is in service now. */
  begin(): void;
  adopt(connection: Connection, handler: ConnectionHandler): void;
  /** False: it is not wanted, and stays with the caller. */
  takeIdle(cluster: string, host: string, facts: ConnectionFacts): boolean;
  fingerprint(cluster: string): string | undefined;
}

/** Goes up whenever a field here changes its meaning; an estate of another version is left to finish by itself. */
export const VERSION = 4;

const prints = new WeakMap<object, string>();

/** Tells configs apart: 64 bits of a hash, and the length of their JSON. */
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

export function estateOf(previous: unknown): Estate | undefined {
  const estate = previous as Estate | undefined;
  return estate?.version === VERSION ? estate : undefined;
}
