import type { KeepAlive } from "./network.ts";
import { type Static, Type, UInt32 } from "./schema.ts";

/** Envoy's `TcpKeepalive`. */
export const TcpKeepalive = Type.Object({
  keepalive_probes: Type.Optional(UInt32()),
  /** Seconds. */
  keepalive_time: Type.Optional(UInt32()),
  /** Seconds. */
  keepalive_interval: Type.Optional(UInt32()),
});
export type TcpKeepalive = Static<typeof TcpKeepalive>;

/** What is not said is as Linux has it. Undefined: none; a 0 anywhere says so too, as in Envoy. */
export function keepAliveOf(config: TcpKeepalive | undefined): KeepAlive | undefined {
  if (config === undefined) return undefined;
  const {
    keepalive_time: idleS = 7_200,
    keepalive_interval: intervalS = 75,
    keepalive_probes: probes = 9,
  } = config;
  return idleS === 0 || intervalS === 0 || probes === 0 ? undefined : { idleS, intervalS, probes };
}
