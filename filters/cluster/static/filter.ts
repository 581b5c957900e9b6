import {
  ConfigError,
  defineCluster,
  endpointsOf,
  isIp,
  LoadAssignment,
  type Static,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({ load_assignment: Type.Optional(LoadAssignment) });

/** Hosts are what the config lists, by address. */
export default defineCluster({
  name: "envoy.cluster.static",
  config: Config,
  setup(config: Static<typeof Config>) {
    const endpoints = endpointsOf(config.load_assignment);
    for (const { spec, path } of endpoints) {
      if (spec.path !== undefined || isIp(spec.ip)) continue;
      throw new ConfigError(
        `load_assignment.${path}.endpoint.address`,
        spec.ip === ""
          ? "an endpoint needs a socket_address or a pipe"
          : `malformed IP address: "${spec.ip}" is a name; set the cluster's type to STRICT_DNS`,
      );
    }
    return { initialHosts: endpoints.map((endpoint) => endpoint.spec) };
  },
});
