import type { MadeClusters, SetupContext } from "@tsproxy/sdk";
import { type ClusterConfig, peerNamesOf } from "./config.ts";

/** Topics that say which clusters are made: a Made each, until the cluster is removed. They outlive generations and isolates. */
const MADE = "clusters/made/";

/** A cluster that was made while the proxy served. JSON. */
export interface Made {
  /** The cluster whose type has made it, and the fingerprint of that one's config. */
  readonly parent: string;
  readonly parentPrint: string;
  /** How its config differs from its parent's. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** When it was made, in ISO 8601. */
  readonly at: string;
}

/** What a generation of the cluster manager does with made clusters. */
export interface MadeOwner {
  /** The fingerprint of a cluster of the config; undefined: there is none of that name. */
  printOf(name: string): string | undefined;
  /** Sets the cluster up. Throws if it cannot be. */
  add(name: string, made: Made): void;
  remove(name: string): void;
}

/**
 * The clusters that are made while the proxy serves, on one thread. The control thread alone decides, and publishes each; every thread
 * and generation, the control thread's too, sets up what is published.
 *
 *   a cluster's type, control thread: put ──► topic ──► all threads: add    ──► hosts, health ──► ready
 *                                  remove ──► topic taken back ──► all threads: remove ──► drains, gives its cells back
 */
export class MadeRegister {
  readonly #cx: SetupContext;
  readonly #owner: MadeOwner;
  readonly #made = new Map<string, Made>();
  /** Their names, by parents that have any. */
  readonly #names = new Map<string, Set<string>>();
  #active = false;

  constructor(cx: SetupContext, owner: MadeOwner) {
    this.#cx = cx;
    this.#owner = owner;
  }

  /** Sets up those that there are, and follows changes. Called when all clusters of the config are there. */
  follow(): void {
    this.#cx.subscribeAll(MADE, (name, value) => {
      if (value === undefined) this.#remove(name);
      else this.#add(name, value as Made);
    });
  }

  get(name: string): Made | undefined {
    return this.#made.get(name);
  }

  /** This generation serves from now on. The clusters of parents that are gone, or are others now, go too. */
  begin(): void {
    this.#active = true;
    if (this.#cx.role !== "control") return;
    for (const [name, made] of this.#made)
      if (!this.#hasParent(made)) this.#cx.retract(MADE + name);
  }

  end(): void {
    this.#active = false;
  }

  /** What the type of that cluster may do; on the control thread. */
  of(parent: string): MadeClusters {
    const serves = () => this.#active;
    const names = () => this.#names.get(parent) ?? NONE;
    return {
      parent,
      get serves() {
        return serves();
      },
      get names() {
        return names();
      },
      put: (name, fields) => this.#put(name, parent, fields),
      remove: (name) => {
        if (this.#active && this.#made.get(name)?.parent === parent) this.#cx.retract(MADE + name);
      },
    };
  }

  #put(name: string, parent: string, fields: Made["fields"]): boolean {
    const parentPrint = this.#owner.printOf(parent);
    const isTaken = this.#owner.printOf(name) !== undefined && !this.#made.has(name);
    if (!this.#active || parentPrint === undefined || isTaken) return false;
    const made: Made = { parent, parentPrint, fields, at: new Date().toISOString() };
    this.#cx.publish(MADE + name, made);
    return true;
  }

  #hasParent({ parent, parentPrint }: Made): boolean {
    return this.#owner.printOf(parent) === parentPrint;
  }

  #add(name: string, made: Made): void {
    const before = this.#made.get(name);
    if (before !== undefined) {
      if (JSON.stringify(before.fields) === JSON.stringify(made.fields)) return;
      this.#remove(name);
    }
    this.#made.set(name, made);
    const names = this.#names.get(made.parent) ?? new Set();
    this.#names.set(made.parent, names.add(name));
    if (!this.#hasParent(made)) return;
    try {
      this.#owner.add(name, made);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      this.#cx.log.warn("a cluster cannot be made", { cluster: name, error: message });
    }
  }

  #remove(name: string): void {
    const made = this.#made.get(name);
    if (made === undefined) return;
    this.#made.delete(name);
    const names = this.#names.get(made.parent);
    names?.delete(name);
    if (names?.size === 0) this.#names.delete(made.parent);
    this.#owner.remove(name);
  }
}

const NONE: ReadonlySet<string> = new Set();

/** The config of a made cluster: its parent's, but for what `fields` says. */
export function madeConfig(
  name: string,
  parent: ClusterConfig,
  peerNames: "verified" | "any" | undefined,
  fields: Made["fields"],
): ClusterConfig {
  const { cluster_type: _, ...inherited } = parent;
  // The parent's type has this default; its own has not.
  const named = peerNamesOf(parent, peerNames);
  return {
    ...inherited,
    ...(named !== undefined && { upstream_http_protocol_options: named }),
    ...fields,
    name,
  } as ClusterConfig;
}
