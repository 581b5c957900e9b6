import {
  type Address,
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
      check(spec, `load_assignment.${path}.endpoint.address`);
      for (const [k, address] of (spec.additionalAddresses ?? []).entries())
        check(address, `load_assignment.${path}.endpoint.additional_addresses[${k}].address`);
    }
    return { initialHosts: endpoints.map((endpoint) => endpoint.spec) };
  },
});

function check(address: Pick<Address, "ip" | "path">, at: string): void {
  if (address.path !== undefined || isIp(address.ip)) return;
  throw new ConfigError(
    at,
    address.ip === ""
      ? "an endpoint needs a socket_address or a pipe"
      : `malformed IP address: "${address.ip}" is a name; set the cluster's type to STRICT_DNS`,
  );
}
