import {
  ConfigError,
  checkDnsOptions,
  DnsOptions,
  DnsOutcomes,
  DnsWatch,
  defineCluster,
  endpointsOf,
  LoadAssignment,
  type Static,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({
  name: Type.String(),
  alt_stat_name: Type.Optional(Type.String()),
  load_assignment: Type.Optional(LoadAssignment),
  ...DnsOptions.properties,
});

/**
 * One host behind one name: new connections go to the address that DNS names first at that time (to the next one if that does
 * not answer), and those that are open stay where they are. For names with many addresses that change all the time.
 */
export default defineCluster({
  name: "envoy.cluster.logical_dns",
  config: Config,
  setup(config: Static<typeof Config>) {
    const endpoints = endpointsOf(config.load_assignment);
    const [endpoint] = endpoints;
    if (endpoint === undefined || endpoints.length > 1)
      throw new ConfigError(
        "load_assignment.endpoints",
        "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint; use STRICT_DNS for more",
      );
    const { spec, path } = endpoint;
    if (spec.path !== undefined || spec.ip === "")
      throw new ConfigError(
        `load_assignment.${path}.endpoint.address`,
        "a LOGICAL_DNS endpoint needs a socket_address with a name",
      );
    checkDnsOptions(config);
    return {
      initialHosts: [],
      discover(update, cx) {
        const stats = cx.stats.scope(`cluster.${config.alt_stat_name || config.name}.`);
        const watch = new DnsWatch(spec.ip, config.name, config, new DnsOutcomes(stats), cx);
        watch.emptyFails = true;
        const { additionalAddresses: _, port, ...own } = spec;
        const tell = (): void => {
          const [ip, ...others] = watch.ips;
          const host = {
            // As in Envoy, the host has metadata, be it empty: dumps show it.
            metadata: {},
            ...own,
            port,
            id: `${spec.ip}:${port}`,
            hostname: spec.hostname || spec.ip,
            ...(others.length > 0 && {
              additionalAddresses: others.map((other) => ({ ip: other, port })),
            }),
          };
          update(ip === undefined ? [] : [{ ...host, ip }]);
        };
        watch.onAnswer = (changed, first) => {
          if (first || changed) tell();
        };
        if (watch.answered) tell();
        watch.resolve();
        return () => watch.stop();
      },
    };
  },
});
