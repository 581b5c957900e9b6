import type { Address, Clusters, Definition, ExtensionRef } from "@tsproxy/sdk";
import type { DrainOptions, ListenerConfig, Refusal, RuntimeConfig } from "../protocol.ts";
import type { SocketConnection } from "./connection.ts";
import type { Surroundings } from "./context.ts";
import { DrainWindow } from "./drain.ts";
import type { Chain, Listener } from "./listener.ts";
import { ListenerBuilder } from "./listener-builder.ts";
import type { SlotState } from "./registry.ts";
import { World } from "./world.ts";

/** How long a preparation may wait for its `cx.waitFor` promises. */
const WAIT_LIMIT_MS = 15_000;
const AT_ONCE: DrainOptions = { ms: 0, immediate: true };

/** What a change asks of the engine. */
export interface GenerationsOwner {
  /** Runs a call on behalf of a connection, which alone is closed if it throws. */
  guard(connection: SocketConnection, call: () => void): void;
  /** Tells core the names of stats that setups have defined. */
  tellStats(): void;
}

/** A change that has been set up and waits for `commit` or `abort`. */
interface Preparation {
  readonly generation: number;
  /** If only code changes, the one that runs. */
  readonly world: World;
  /** Where listeners that services bring along go; they are as they were if only code changes. */
  readonly listeners: World["listeners"];
  /** Slots made for it; `abort` retires them. */
  readonly made: SlotState[];
}

/**
 * What runs in this isolate, and the change that is being prepared beside it.
 *
 *   prepare ──► extend (listeners of services) ──► "prepared" to core ──► commit
 *      └ refused: nothing has changed                                └──► abort
 */
export class Generations {
  readonly #around: Surroundings;
  readonly #owner: GenerationsOwner;
  #world = new World();
  #preparation: Preparation | undefined = undefined;
  /** Set while setups run, so that they see the clusters of the configuration being prepared. */
  #preparing: World | undefined = undefined;
  /** A service refuses what is being prepared. */
  #missesService = false;
  #draining = false;

  constructor(around: Surroundings, owner: GenerationsOwner) {
    this.#around = around;
    this.#owner = owner;
  }

  listener(name: string): Listener | undefined {
    return this.#world.listeners.get(name)?.listener;
  }

  get clusters(): Clusters | undefined {
    const preparing = this.#preparing;
    return preparing === undefined ? this.#world.clusters(false) : preparing.clusters(true);
  }

  /** Nobody knows which clusters there are while the service that has them refuses its config: then all names pass. */
  hasCluster(name: string): boolean {
    const { clusters } = this;
    if (clusters === undefined) return this.#missesService;
    return clusters.has?.(name) ?? clusters.get(name) !== undefined;
  }

  /**
   * Sets everything that changes up beside what runs. If there are refusals it answers them and nothing has changed. Else it
   * tells core "prepared" once all `cx.waitFor` promises have settled, after WAIT_LIMIT_MS at the latest. `changed`: the packages
   * with new code; `config` undefined: only code changes.
   */
  prepare(
    generation: number,
    changed: ReadonlyMap<string, Definition>,
    removed: readonly string[],
    config: RuntimeConfig | undefined,
  ): readonly Refusal[] {
    if (this.#preparation !== undefined) this.abort();
    const { registry, role, runtime } = this.#around;
    const refusals: Refusal[] = [];
    const made: SlotState[] = [];
    const world = config === undefined ? this.#world : new World(config.loadedRuntime);
    const listeners = config === undefined ? new Map() : world.listeners;
    if (role === "canary") runtime.replace(world.runtime);
    this.#around.waits = [];
    registry.begin(generation, changed, removed);
    this.#preparing = world;
    if (config !== undefined) {
      this.#prepareServices(config, world, made, refusals);
      this.#missesService = refusals.length > 0;
      registry.prepareCode(changed, refusals);
      this.#prepareListeners(config.listeners, 0, listeners, made, refusals);
    }
    registry.prepareCode(changed, refusals);
    this.#preparing = undefined;
    this.#missesService = false;
    this.#owner.tellStats();
    if (refusals.length > 0) {
      for (const slot of made) slot.retire();
      registry.abort();
      return refusals;
    }
    this.#preparation = { generation, world, listeners, made };
    this.#waitForAll(generation);
    return [];
  }

  /** Adds listeners that services bring along to the present preparation. `nth`: index of the first among all listeners. */
  extend(configs: readonly ListenerConfig[], nth: number): readonly Refusal[] {
    const { generation, world, listeners, made } = this.#preparation!;
    const refusals: Refusal[] = [];
    this.#around.waits = [];
    this.#preparing = world;
    this.#prepareListeners(configs, nth, listeners, made, refusals);
    this.#preparing = undefined;
    this.#owner.tellStats();
    if (refusals.length > 0) this.abort();
    else this.#waitForAll(generation);
    return refusals;
  }

  /** Puts the preparation into service. Connections of removed chains are drained as `how` says. */
  commit(how: DrainOptions): void {
    const preparation = this.#preparation;
    if (preparation === undefined) return;
    this.#preparation = undefined;
    this.#around.registry.commit();
    const before = this.#world;
    this.#world = preparation.world;
    this.#tellConnections();
    if (before === preparation.world) return;
    const runs = new Set([...this.#world.chains()].map((chain) => chain.runs));
    const used = new Set(this.#world.slots());
    for (const chain of before.chains()) if (!runs.has(chain.runs)) this.#drainChain(chain, how);
    for (const slot of before.slots()) if (!used.has(slot)) slot.retire();
  }

  /** Drops the present preparation, if there is one, also one that core has stopped in the middle. */
  abort(): void {
    const preparation = this.#preparation;
    this.#preparation = this.#preparing = undefined;
    this.#around.registry.abort();
    for (const slot of preparation?.made ?? []) slot.retire();
  }

  /** Envoy's Listeners as JSON values that services bring along, after the present preparation. */
  serviceListeners(): readonly unknown[] {
    return (this.#preparation?.world ?? this.#world).serviceListeners();
  }

  #prepareServices(
    config: RuntimeConfig,
    world: World,
    made: SlotState[],
    refusals: Refusal[],
  ): void {
    const { role, registry } = this.#around;
    for (const [k, entry] of config.services.entries()) {
      const place = `/services/${k}/config`;
      const runs = entry.runs ?? "workers";
      if (role === "worker" && runs === "control") continue;
      if (role === "control" && runs === "workers") continue;
      const { package: name } = entry;
      const ref: ExtensionRef = { name, package: name, config: entry.config };
      const hash = entry.hash ?? JSON.stringify(entry.config);
      const old = this.#world.services.get(name);
      registry.attempt(name, place, refusals, () => {
        if (old !== undefined) {
          if (old.hash !== hash) registry.renew(old.slot as never, ref);
          world.services.set(name, { hash, slot: old.slot });
          return;
        }
        const slot = registry.create("service", ref, { pointer: place, statPrefix: "" }, undefined);
        made.push(slot as never);
        world.services.set(name, { hash, slot });
      });
    }
  }

  #prepareListeners(
    configs: readonly ListenerConfig[],
    nth: number,
    listeners: World["listeners"],
    made: SlotState[],
    refusals: Refusal[],
  ): void {
    const { role, registry } = this.#around;
    const listenerAt = (address: Address) => this.#world.listenerAt(address);
    const builder = new ListenerBuilder(this.#around, listenerAt, made, refusals);
    // What a listener says was right beside the services of before: a route may name a cluster that is gone now.
    const isJudgedAnew = role === "canary" && this.#hasOtherServices();
    for (const [k, entry] of configs.entries()) {
      if (role !== "canary" && role !== (entry.thread ?? "worker")) continue;
      const hash = entry.hash ?? JSON.stringify(entry);
      const old = this.#world.listeners.get(entry.name);
      if (old !== undefined && old.hash === hash && !isJudgedAnew) {
        listeners.set(entry.name, old);
        continue;
      }
      const place = `/listeners/${nth + k}`;
      registry.attempt("", place, refusals, () => {
        // Connections to an address that is gone are drained with the chains they are in.
        const isKept =
          old !== undefined && !isJudgedAnew && keepsAddresses(old.listener.config, entry);
        const kept = isKept ? old.listener : undefined;
        const listener = builder.build(entry, kept, place);
        listeners.set(entry.name, { hash, listener });
      });
    }
  }

  /** The world that is prepared says something else to its services than the one that serves. */
  #hasOtherServices(): boolean {
    const prepared = this.#preparing?.services ?? new Map();
    return [...prepared].some(([name, { hash }]) => this.#world.services.get(name)?.hash !== hash);
  }

  /** Tells core "prepared" once all waits have settled or WAIT_LIMIT_MS is over. */
  #waitForAll(generation: number): void {
    const { waits, host, wheel } = this.#around;
    this.#around.waits = [];
    const tell = (): void => {
      if (this.#preparation?.generation === generation) host.tell("prepared", { generation });
    };
    if (waits.length === 0) {
      tell();
      return;
    }
    let open = waits.length;
    let told = false;
    const timer = wheel.timer(() => {
      if (told) return;
      told = true;
      host.log("warn", "went on without waiting any longer", {
        for: waits.map((w) => w.what).join(", "),
      });
      tell();
    });
    timer.arm(WAIT_LIMIT_MS);
    const settled = (): void => {
      if (--open > 0 || told) return;
      told = true;
      timer.cancel();
      tell();
    };
    for (const wait of waits) wait.settled.then(settled, settled);
  }

  /** Tells connections of the chains that stay about changed packages. */
  #tellConnections(): void {
    const drain = this.#drainWindow(AT_ONCE);
    for (const { runs, slots, transport } of this.#world.chains())
      for (const run of [...runs])
        this.#owner.guard(run.connection, () => run.onPackagesChanged(slots, transport, drain));
  }

  #drainChain(chain: Chain, how: DrainOptions): void {
    if (chain.runs.size === 0) return;
    this.#drainRuns(chain, this.#drainWindow(how));
    const timer = this.#around.wheel.timer(() => {
      for (const run of [...chain.runs]) run.connection.close("flush");
    });
    timer.arm(how.ms);
  }

  #drainWindow(how: DrainOptions): DrainWindow {
    return new DrainWindow(how, () => this.#around.wheel.now);
  }

  #drainRuns(chain: Chain, drain: DrainWindow): void {
    for (const run of [...chain.runs]) this.#owner.guard(run.connection, () => run.drain(drain));
  }

  /** Drains all connections at once. */
  drain(): void {
    if (this.#draining) return;
    this.#draining = true;
    const drain = this.#drainWindow(AT_ONCE);
    for (const chain of this.#world.chains()) this.#drainRuns(chain, drain);
  }

  /** Drains the connections that these listeners have and those that they will accept. A drain that has begun goes on. */
  drainListeners(names: readonly string[], how: DrainOptions): void {
    const drain = this.#drainWindow(how);
    for (const name of names) {
      const listener = this.listener(name);
      if (listener === undefined || listener.draining !== undefined) continue;
      listener.draining = drain;
      for (const chain of listener.chains) this.#drainRuns(chain, drain);
    }
  }

  /** Number of open connections of all listeners. */
  activeConnections(): number {
    let n = 0;
    for (const { runs } of this.#world.chains()) n += runs.size;
    return n;
  }
}

/** True if a client of the first configuration would reach the second one as well: no address is gone. */
function keepsAddresses(before: ListenerConfig, now: ListenerConfig): boolean {
  const all = ({ address, additionalAddresses = [] }: ListenerConfig) =>
    [address, ...additionalAddresses].map((at) => JSON.stringify(at));
  const here = new Set(all(now));
  return all(before).every((at) => here.has(at));
}
