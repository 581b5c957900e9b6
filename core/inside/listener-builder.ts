import {
  AccessLogs,
  type Address,
  type ExtensionRef,
  type Kinds,
  type NetworkFilterFactory,
  Roster,
  type Slot,
  type TransportFactory,
} from "@tsproxy/sdk";
import type { FilterChainConfig, ListenerConfig, Refusal } from "../protocol.ts";
import { Context, type Surroundings } from "./context.ts";
import { type Chain, Listener, type ListenerLogs } from "./listener.ts";
import type { NetworkChainRun } from "./network-chain.ts";
import { type Place, Scope, type SlotState } from "./registry.ts";
import { ScopedStats } from "./stats.ts";

/** Builds the listeners of a configuration that is being prepared: new chains get new slots, unchanged ones keep theirs. */
export class ListenerBuilder {
  readonly #around: Surroundings;
  readonly #listenerAt: (address: Address) => Listener | undefined;
  readonly #made: SlotState[];
  readonly #refusals: Refusal[];

  /** New slots are added to `made`, refusals of setups to `refusals`. `listenerAt` finds listeners of the running config. */
  constructor(
    around: Surroundings,
    listenerAt: (address: Address) => Listener | undefined,
    made: SlotState[],
    refusals: Refusal[],
  ) {
    this.#around = around;
    this.#listenerAt = listenerAt;
    this.#made = made;
    this.#refusals = refusals;
  }

  /** `place`: the listener's pointer into the RuntimeConfig. Chains that match one of `old` keep its slots, and so its connections. */
  build(config: ListenerConfig, old: Listener | undefined, place: string): Listener {
    const configs = [...config.filterChains];
    if (config.defaultFilterChain !== undefined) configs.push(config.defaultFilterChain);
    const left = [...(old?.chains ?? [])];
    const chains = configs.map((chain, k): Chain => {
      const at = k < config.filterChains.length ? `filterChains/${k}` : "defaultFilterChain";
      const pointer = `${place}/${at}/filters`;
      const same = left.findIndex((c) => isSamePlace(c.config, chain));
      const kept = same < 0 ? undefined : left.splice(same, 1)[0];
      const statPrefix = `listener.${config.statPrefix}.`;
      const transportAt = `${place}/${at}/transport/config`;
      if (kept !== undefined) {
        this.#renewChain(kept, chain, pointer, transportAt);
        const { slots, transport, runs } = kept;
        return { config: chain, slots, transport, runs };
      }
      const slots = this.#createSlots("network", chain.filters, pointer, config.statPrefix);
      const transport = this.#createTransport(chain.transport, {
        pointer: transportAt,
        statPrefix,
      });
      return { config: chain, slots, transport, runs: new Roster<NetworkChainRun>() };
    });
    const isSame =
      JSON.stringify(old?.config.listenerFilters) === JSON.stringify(config.listenerFilters);
    const listenerFilters =
      old !== undefined && isSame
        ? old.listenerFilters
        : this.#createSlots(
            config.address.udp === true ? "udp" : "listener",
            config.listenerFilters,
            `${place}/listenerFilters`,
          );
    const logs = this.#createLogs(config, `${place}/accessLog`);
    const { role, worker, stats, wheel, runtime, counts } = this.#around;
    return new Listener(config, chains, listenerFilters, new ScopedStats(stats, ""), {
      wheel,
      runtime,
      count: (counted) => counts.of(counted),
      listenerAt: this.#listenerAt,
      thread: role === "control" ? "main_thread" : `worker_${worker}`,
      logs,
    });
  }

  #createLogs({ accessLog = [] }: ListenerConfig, pointer: string): ListenerLogs | undefined {
    if (accessLog.length === 0) return undefined;
    let logs: ListenerLogs | undefined;
    this.#around.registry.attempt("", pointer, this.#refusals, () => {
      const scope = new Scope(this.#around.registry, "", { pointer, statPrefix: "" }, undefined);
      const list = new AccessLogs(accessLog, "", new Context(this.#around, scope));
      this.#made.push(...scope.children);
      logs = { list, slots: scope.children };
    });
    return logs;
  }

  #createSlots<K extends "network" | "listener" | "udp">(
    kind: K,
    refs: readonly ExtensionRef[],
    pointer: string,
    listenerStatPrefix?: string,
  ): Slot<Kinds[K]>[] {
    const slots: Slot<Kinds[K]>[] = [];
    for (const [n, ref] of refs.entries()) {
      const at = `${pointer}/${n}/config`;
      this.#around.registry.attempt(ref.package, at, this.#refusals, () => {
        const slot = this.#around.registry.create(
          kind,
          ref,
          {
            pointer: at,
            statPrefix: "",
            ...(listenerStatPrefix !== undefined && { listenerStatPrefix }),
          },
          undefined,
        );
        this.#made.push(slot as never);
        slots.push(slot);
      });
    }
    return slots;
  }

  #createTransport(
    ref: ExtensionRef | undefined,
    place: Place,
  ): Slot<TransportFactory> | undefined {
    if (ref === undefined) return undefined;
    let slot: SlotState<TransportFactory> | undefined;
    this.#around.registry.attempt(ref.package, place.pointer, this.#refusals, () => {
      slot = this.#around.registry.create("transport", ref, place, undefined);
      this.#made.push(slot as never);
    });
    return slot;
  }

  /** Prepares the changed configs of a chain that keeps its slots. */
  #renewChain(kept: Chain, chain: FilterChainConfig, pointer: string, transportAt: string): void {
    const { transport } = chain;
    if (
      transport !== undefined &&
      JSON.stringify(kept.config.transport) !== JSON.stringify(transport)
    )
      this.#around.registry.attempt(transport.package, transportAt, this.#refusals, () =>
        this.#around.registry.renew(kept.transport as unknown as SlotState, transport),
      );
    for (const [n, ref] of chain.filters.entries()) {
      if (JSON.stringify(kept.config.filters[n]) === JSON.stringify(ref)) continue;
      const slot = kept.slots[n] as SlotState<NetworkFilterFactory>;
      this.#around.registry.attempt(ref.package, `${pointer}/${n}/config`, this.#refusals, () =>
        this.#around.registry.reconfigure(slot, ref),
      );
    }
  }
}

/** Same name and match, and the same packages in the same order: at most configs differ. */
function isSamePlace(a: FilterChainConfig, b: FilterChainConfig): boolean {
  return (
    a.name === b.name &&
    JSON.stringify(a.match) === JSON.stringify(b.match) &&
    a.transport?.package === b.transport?.package &&
    a.filters.length === b.filters.length &&
    a.filters.every((ref, k) => ref.package === b.filters[k]!.package)
  );
}
