import type { Address, Clusters, Service } from "@tsproxy/sdk";
import type { RuntimeValues } from "../protocol.ts";
import type { Chain, Listener } from "./listener.ts";
import type { SlotState } from "./registry.ts";

export interface ListenerUse {
  readonly hash: string;
  readonly listener: Listener;
}

export interface ServiceUse {
  readonly hash: string;
  readonly slot: SlotState<Service>;
}

/** The listeners and services of one configuration, running or prepared, by their names. */
export class World {
  /** What the layers of its runtime said when it was loaded. */
  readonly runtime: RuntimeValues;
  readonly listeners = new Map<string, ListenerUse>();
  readonly services = new Map<string, ServiceUse>();

  constructor(runtime: RuntimeValues = []) {
    this.runtime = runtime;
  }

  /** The chains of all listeners. */
  *chains(): Generator<Chain> {
    for (const { listener } of this.listeners.values()) yield* listener.chains;
  }

  /** The TCP listener of exactly that address, else one of that port on the wildcard address. */
  listenerAt({ ip, port }: Address): Listener | undefined {
    let any: Listener | undefined;
    for (const { listener } of this.listeners.values()) {
      const at = listener.config.address;
      if (at.port !== port || at.udp === true || at.path !== undefined) continue;
      if (at.ip === ip) return listener;
      if (at.ip === "0.0.0.0" || at.ip === "::") any ??= listener;
    }
    return any;
  }

  /** The clusters of the service that has them. `prepared`: as they are after the present preparation. */
  clusters(prepared: boolean): Clusters | undefined {
    for (const { slot } of this.services.values()) {
      const { value } = prepared ? (slot.next ?? slot.current) : slot.current;
      if (value.clusters !== undefined) return value.clusters;
    }
    return undefined;
  }

  /** Envoy's Listeners as JSON values that services bring along, after the present preparation. */
  serviceListeners(): readonly unknown[] {
    const list: unknown[] = [];
    for (const { slot } of this.services.values()) {
      const { listener } = (slot.next ?? slot.current).value;
      if (listener !== undefined) list.push(listener);
    }
    return list;
  }

  /** Every slot that the configuration uses. */
  *slots(): Generator<SlotState> {
    for (const { slot } of this.services.values()) yield slot as unknown as SlotState;
    for (const { listener } of this.listeners.values()) {
      yield* listener.listenerFilters as unknown as readonly SlotState[];
      yield* listener.logs?.slots ?? [];
    }
    for (const { slots, transport } of this.chains()) {
      yield* slots as unknown as readonly SlotState[];
      if (transport !== undefined) yield transport as unknown as SlotState;
    }
  }
}
