import { ConfigError, defineCluster, endpointsOf } from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { Discovery } from "./discovery.ts";

export default defineCluster({
  name: "envoy.cluster.strict_dns",
  config: Config,
  setup(config: Config) {
    const endpoints = endpointsOf(config.load_assignment);
    for (const { spec, path } of endpoints) {
      if (spec.path === undefined && spec.ip !== "") continue;
      throw new ConfigError(
        `load_assignment.${path}.endpoint.address`,
        "a STRICT_DNS endpoint needs a socket_address with a name or an IP address",
      );
    }
    if (config.dns_refresh_rate !== undefined && config.dns_refresh_rate < 1)
      throw new ConfigError("dns_refresh_rate", "must be at least a millisecond; write 5s");
    const failure = config.dns_failure_refresh_rate;
    if (failure !== undefined && failure.base_interval < 1)
      throw new ConfigError(
        "dns_failure_refresh_rate.base_interval",
        "must be at least a millisecond",
      );
    if (failure?.max_interval !== undefined && failure.max_interval < failure.base_interval)
      throw new ConfigError("dns_failure_refresh_rate.max_interval", "is less than base_interval");
    return {
      initialHosts: [],
      discover(update, cx) {
        const discovery = new Discovery(
          config,
          endpoints.map((endpoint) => endpoint.spec),
          update,
          cx,
        );
        return () => discovery.stop();
      },
    };
  },
});
