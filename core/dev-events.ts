import type { PackageState } from "./packages/package-state.ts";
import type { RuntimeConfig } from "./protocol.ts";
import type { ReloadOutcome } from "./reload/reports.ts";
import type { Bound } from "./sockets/bound.ts";

/** Events that a proxy sends to `tsproxy filter dev`, which has started it. */
export type DevEvent =
  | {
      readonly type: "started";
      readonly listeners: readonly Bound[];
      /** Dropped-in packages, with their problems. */
      readonly packages: readonly PackageState[];
      /** Where debuggers attach: `127.0.0.1:9230`. */
      readonly inspector?: string | undefined;
    }
  | ReloadOutcome
  | { readonly type: "exchange"; readonly exchange: unknown };

/** One request and its answer, as `http/recorder` reports them. */
export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly authority: string;
  readonly protocol: string;
  readonly request: RecordedHalf;
  readonly status: number;
  readonly response: RecordedHalf;
  /** True: the response was complete. */
  readonly isWhole: boolean;
  readonly ms: number;
  readonly flags: readonly string[];
  readonly details: string;
  /** `ip:port` of the client. */
  readonly client: string;
  readonly listener: { readonly ip: string; readonly port: number };
}

export interface RecordedHalf {
  readonly head: readonly (readonly [string, string])[];
  /** The recorded body, one char a byte. */
  readonly body: string;
  /** True: the body was longer than the recorder keeps. */
  readonly cut: boolean;
}

const CONNECTION_MANAGER = "network/http_connection_manager";
const RECORDER = {
  name: "http/recorder",
  package: "http/recorder",
  config: { max_body_bytes: 65_536 },
} as const;

/** Puts a recorder before the HTTP filters of every connection manager that serves traffic. */
export function recordExchanges(config: RuntimeConfig): void {
  for (const { filterChains, defaultFilterChain, thread } of config.listeners) {
    if (thread === "control") continue;
    const chains = [...filterChains, ...(defaultFilterChain ? [defaultFilterChain] : [])];
    for (const { filters } of chains)
      for (const ref of filters) {
        if (ref.package !== CONNECTION_MANAGER) continue;
        const { http_filters: chain } = ref.config as { http_filters: unknown[] };
        chain.unshift({ ...RECORDER });
      }
  }
}
