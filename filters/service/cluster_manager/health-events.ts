import type { FileSink, HostSpec, SetupContext } from "@tsproxy/sdk";

/** An event as a field of Envoy's HealthCheckEvent. */
export type HealthEvent =
  | { readonly eject_unhealthy_event: { failure_type: string; http_status_code: number } }
  | { readonly add_healthy_event: { first_check: boolean } }
  | {
      readonly health_check_failure_event: {
        failure_type: string;
        first_check: boolean;
        http_status_code: number;
      };
    }
  | { readonly degraded_healthy_host: object }
  | { readonly no_longer_degraded_host: object }
  | { readonly successful_health_check_event: object };

/** Events written before the timestamp or last, so that fields have the order of Envoy's message. */
const BEFORE_TIMESTAMP = ["eject_unhealthy_event", "add_healthy_event"];
const LAST = ["successful_health_check_event"];

/** Writes each event as one JSON line of envoy.data.core.v3.HealthCheckEvent. */
export class HealthEventLog {
  readonly #files: readonly FileSink[];
  readonly #type: string;
  readonly #cluster: string;

  constructor(cx: SetupContext, paths: readonly string[], type: string, cluster: string) {
    this.#files = paths.map((path) => cx.file(path));
    this.#type = type;
    this.#cluster = cluster;
  }

  write(spec: HostSpec, event: HealthEvent): void {
    if (this.#files.length === 0) return;
    const name = Object.keys(event)[0]!;
    const line = JSON.stringify({
      health_checker_type: this.#type,
      host: addressOf(spec),
      cluster_name: this.#cluster,
      ...(BEFORE_TIMESTAMP.includes(name) && event),
      timestamp: new Date(Date.now()).toISOString(),
      ...(!BEFORE_TIMESTAMP.includes(name) && !LAST.includes(name) && event),
      ...(spec.metadata !== undefined && {
        metadata: { filter_metadata: {}, ...spec.metadata, typed_filter_metadata: {} },
      }),
      locality: { region: "", zone: "", sub_zone: "", ...spec.locality },
      ...(LAST.includes(name) && event),
    });
    for (const file of this.#files) file.append(`${line}\n`);
  }
}

function addressOf(spec: HostSpec): object {
  if (spec.path !== undefined) return { pipe: { path: spec.path, mode: 0 } };
  return {
    socket_address: {
      protocol: "TCP",
      address: spec.ip,
      port_value: spec.port,
      resolver_name: "",
      ipv4_compat: false,
      network_namespace_filepath: "",
    },
  };
}
