import { type Answer, json, text } from "./answer.ts";
import type { CoreData, PackageSnapshot, ServerSnapshot } from "./core-data.ts";
import type { Query } from "./query.ts";

/** `/ready` */
export async function ready(_query: Query, core: CoreData): Promise<Answer> {
  const { state } = await core.server();
  return text(`${state}\n`, state === "LIVE" ? 200 : 503);
}

/** `/server_info` */
export async function serverInfo(_query: Query, core: CoreData): Promise<Answer> {
  const [server, packages] = await Promise.all([core.server(), core.packages()]);
  const uptime = `${Math.floor(server.uptimeSeconds)}s`;
  return json({
    version: server.version,
    state: server.state,
    uptime_current_epoch: uptime,
    uptime_all_epochs: uptime,
    hot_restart_version: "disabled",
    command_line_options: { ...OPTIONS, ...server.options },
    // Protobuf's JSON leaves lists and maps that are empty in here, and in no other answer.
    node: {
      client_features: [],
      dynamic_parameters: {},
      listening_addresses: [],
      ...shownNode(server, packages),
    },
    hot_restart_initializing: false,
  });
}

/** `/memory`: Envoy's names for what V8 and the system tell. */
export async function memory(_query: Query, core: CoreData): Promise<Answer> {
  const { allocated, heapSize, unmapped, free, cached, physical } = await core.memory();
  return json({
    allocated: String(allocated),
    heap_size: String(heapSize),
    pageheap_unmapped: String(unmapped),
    pageheap_free: String(free),
    total_thread_cache: String(cached),
    total_physical_bytes: String(physical),
  });
}

/** Envoy's options at the values that describe us where core has no such option: one process, no hot restart, text logs. */
const OPTIONS = {
  base_id: "0",
  concurrency: 1,
  config_path: "",
  config_yaml: "",
  allow_unknown_static_fields: false,
  admin_address_path: "",
  local_address_ip_version: "v4",
  log_level: "info",
  component_log_level: "",
  log_format: "",
  log_path: "",
  service_cluster: "",
  service_node: "",
  service_zone: "",
  file_flush_interval: "10s",
  drain_time: "600s",
  parent_shutdown_time: "900s",
  mode: "Serve",
  disable_hot_restart: true,
  enable_mutex_tracing: false,
  restart_epoch: 0,
  cpuset_threads: false,
  reject_unknown_dynamic_fields: false,
  log_format_escaped: false,
  disabled_extensions: [],
  ignore_unknown_dynamic_fields: false,
  use_dynamic_base_id: false,
  base_id_path: "",
  drain_strategy: "Gradual",
  enable_fine_grain_logging: false,
  socket_path: "",
  socket_mode: 0,
  enable_core_dump: false,
  stats_tag: [],
  skip_hot_restart_on_no_parent: false,
  skip_hot_restart_parent_stats: false,
  skip_deprecated_logs: false,
  file_flush_min_size: 0,
  log_stacktrace_single_entry: false,
};

const CATEGORIES: Readonly<Record<string, string>> = {
  http: "envoy.filters.http",
  network: "envoy.filters.network",
  listener: "envoy.filters.listener",
  access_log: "envoy.access_loggers",
  cluster: "envoy.clusters",
  balancer: "envoy.load_balancing_policies",
};

/** The node with what a management server would be told of it. */
export function shownNode(
  server: ServerSnapshot,
  packages: readonly PackageSnapshot[],
): Record<string, unknown> {
  const { id, cluster, metadata, locality, ...node } = server.node;
  return {
    id: id ?? "",
    cluster: cluster ?? "",
    ...(metadata !== undefined && { metadata }),
    ...(locality !== undefined && {
      locality: { region: "", zone: "", sub_zone: "", ...(locality as object) },
    }),
    user_agent_name: "tsproxy",
    user_agent_build_version: buildVersion(server.version),
    ...node,
    extensions: packages.map(extension),
  };
}

/** `config.core.v3.BuildVersion`. Which revision it was made of is not known. */
function buildVersion(version: string): unknown {
  const [major = 0, minor = 0, patch = 0] = version
    .split(".")
    .map((part) => Number.parseInt(part, 10));
  return {
    version: { major_number: major, minor_number: minor, patch },
    metadata: {
      "build.type": "RELEASE",
      "revision.sha": "",
      "revision.status": "",
      "ssl.version": "OpenSSL",
    },
  };
}

function extension(p: PackageSnapshot): unknown {
  return {
    name: p.name,
    category: Object.hasOwn(CATEGORIES, p.kind) ? CATEGORIES[p.kind] : `tsproxy.${p.kind}`,
    type_descriptor: "",
    disabled: p.state !== "active",
    type_urls: p.types ?? [],
  };
}
