import { ConfigError, defineService, isIp } from "@tsproxy/sdk";
import { Config } from "./config.ts";

/** Brings along the admin listener: a connection manager on the control thread, with `http/admin` as its only filter. */
export default defineService({
  name: "tsproxy.services.admin",
  types: ["envoy.config.bootstrap.v3.Admin"],
  runs: "control",
  section: "admin",
  config: Config,
  setup(config) {
    if (config.address === undefined) return {};
    return { listener: adminListener(config, config.address) };
  },
});

/** Envoy's Listener as JSON. Core checks it as it checks the user's, so that it gets the defaults of every schema. */
function adminListener(config: Config, address: NonNullable<Config["address"]>): unknown {
  return {
    name: "admin",
    stat_prefix: "admin",
    address: addressOf(address),
    filter_chains: [
      {
        filters: [
          { name: "network/http_connection_manager", config: connectionManagerConfig(config) },
        ],
      },
    ],
  };
}

function addressOf(address: NonNullable<Config["address"]>): unknown {
  const { socket_address, pipe } = address;
  if (socket_address !== undefined && pipe !== undefined) {
    throw new ConfigError("address", "has socket_address and pipe; keep one of the two");
  }
  if (pipe !== undefined) return { pipe };
  if (socket_address === undefined) {
    throw new ConfigError("address", "is empty; write socket_address: { address, port_value }");
  }
  const ip = socket_address.address;
  if (isIp(ip)) return { socket_address };
  throw new ConfigError("address.socket_address.address", `"${ip}" is not an IP address`);
}

function connectionManagerConfig(config: Config): unknown {
  return {
    stat_prefix: "admin",
    codec_type: "AUTO",
    // As Envoy's: a path written another way is not another command.
    normalize_path: true,
    merge_slashes: true,
    use_remote_address: true,
    generate_request_id: false,
    route_config: { name: "admin", virtual_hosts: [] },
    http_filters: [{ name: "http/admin", config: {} }],
    access_log: accessLogs(config),
  };
}

function accessLogs(config: Config): unknown[] {
  const logs = config.access_log.map(({ package: name, config, filter }) => ({
    name,
    config,
    ...(filter && { filter }),
  }));
  const path = config.access_log_path;
  if (path === undefined || path === "") return logs;
  return [...logs, { name: "access_log/file", config: { path } }];
}
