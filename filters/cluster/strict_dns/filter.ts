import { ConfigError, checkDnsOptions, defineCluster, endpointsOf } from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { Discovery } from "./discovery.ts";

/** Hosts are all addresses of the names that the config lists, asked for again and again. */
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
    checkDnsOptions(config);
    return {
      initialHosts: [],
      discover(update, cx) {
        const discovery = new Discovery(
          config,
          // As in Envoy, their hosts have metadata, be it empty: dumps show it.
          endpoints.map(({ spec }) => ({ metadata: {}, ...spec })),
          update,
          cx,
        );
        return () => discovery.stop();
      },
    };
  },
});
