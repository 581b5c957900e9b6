import type { Overlay } from "../config/overlay.ts";
import type { RunOptions } from "../options.ts";

/** Envoy's `admin.v3.CommandLineOptions`, of those flags that have a meaning here. */
export function commandLineOptions(options: RunOptions): Record<string, unknown> {
  const { log, overlays } = options;
  const components = Object.entries(log.components);
  const zone = textsOf<Zone>(overlays, "--service-zone")[0];
  return {
    concurrency: options.concurrency,
    config_path: options.configFile,
    config_yaml: overlays.find(({ name }) => name === "--config-yaml")?.text ?? "",
    allow_unknown_static_fields: options.allowUnknown,
    admin_address_path: options.adminAddressPath,
    local_address_ip_version: options.addressFamily,
    log_level: log.level === "warn" ? "warning" : log.level,
    component_log_level: components.map(([name, level]) => `${name}:${level}`).join(","),
    log_format: log.format ?? "",
    log_format_escaped: log.escaped,
    log_path: log.path ?? "",
    service_cluster: options.serviceCluster,
    service_node: options.serviceNode,
    service_zone: zone?.node.locality.zone ?? "",
    stats_tag: textsOf<Tag>(overlays, "--stats-tag")
      .flatMap(({ stats_config }) => stats_config.stats_tags)
      .map(({ tag_name, fixed_value }) => `${tag_name}:${fixed_value}`),
    drain_time: duration(options.drainTimeMs),
    drain_strategy: options.drainImmediately ? "Immediate" : "Gradual",
    parent_shutdown_time: duration(options.parentShutdownMs),
    disable_hot_restart: options.controlSocket === "",
    socket_path: options.controlSocket,
    socket_mode: options.controlSocketMode,
    mode: "Serve",
    file_flush_interval: duration(options.fileFlush.ms),
  };
}

interface Zone {
  readonly node: { readonly locality: { readonly zone: string } };
}

interface Tag {
  readonly stats_config: {
    readonly stats_tags: readonly { readonly tag_name: string; readonly fixed_value: string }[];
  };
}

/** What a flag has laid over the bootstrap, once for each time that it was given. */
function textsOf<T>(overlays: readonly Overlay[], flag: string): T[] {
  return overlays.filter(({ name }) => name === flag).map(({ text }) => JSON.parse(text) as T);
}

/** Protobuf's JSON: `10s`, `1.500s`. */
function duration(ms: number): string {
  return `${ms % 1000 === 0 ? ms / 1000 : (ms / 1000).toFixed(3)}s`;
}
