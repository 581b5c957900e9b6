// Hot path: `choose` runs for every request.
import {
  type BalancedCluster,
  type Balancer,
  type BalancerContext,
  ConfigError,
  defineBalancer,
  type HeaderName,
  type Host,
  type HttpStream,
  LoadBalancingPolicy,
  nameOf,
  type Static,
  Type,
  valueAt,
} from "@tsproxy/sdk";

const Source = Type.Object({
  header: Type.Optional(Type.String()),
  metadata: Type.Optional(
    Type.Object({
      key: Type.String({ minLength: 1 }),
      path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
    }),
  ),
});

const Config = Type.Object({
  override_host_sources: Type.Array(Source, { minItems: 1 }),
  fallback_policy: LoadBalancingPolicy,
});

type Stream = Pick<HttpStream, "request" | "info" | "metadata">;
/** Reads the list of addresses that a source gives, as text; undefined: it gives none. */
type Read = (stream: Stream) => string | undefined;

/** Addresses of a list beyond these are not tried. */
const MAX_HOSTS = 64;

/** The hosts that a request names, one for each attempt; then those of another policy. */
class OverrideHost implements Balancer {
  readonly #reads: readonly Read[];
  readonly #cluster: BalancedCluster;
  readonly #fallback: Balancer;

  constructor(reads: readonly Read[], cluster: BalancedCluster, fallback: Balancer) {
    this.#reads = reads;
    this.#cluster = cluster;
    this.#fallback = fallback;
  }

  choose(context: BalancerContext, attempt?: number): Host | undefined {
    const { stream } = context;
    return (stream && this.#named(stream)) ?? this.#fallback.choose(context, attempt);
  }

  peek(context: BalancerContext): Host | undefined {
    return this.#fallback.peek?.(context);
  }

  dispose(): void {
    this.#fallback.dispose?.();
  }

  #named(stream: Stream): Host | undefined {
    for (const read of this.#reads) {
      const list = read(stream);
      if (list === undefined || list === "") continue;
      // Only the first source with a list counts; attempts that go beyond its end are the fallback's.
      let skip = Math.max(0, stream.info.attempts - 1);
      for (const address of list.split(",", MAX_HOSTS)) {
        const host = this.#cluster.find(address.trim());
        if (host !== undefined && skip-- === 0) return host;
      }
      return undefined;
    }
    return undefined;
  }
}

export default defineBalancer({
  name: "envoy.load_balancing_policies.override_host",
  types: ["envoy.extensions.load_balancing_policies.override_host.v3.OverrideHost"],
  config: Config,
  setup(config, cx) {
    const reads = config.override_host_sources.map((source, k) =>
      reader(source, `override_host_sources[${k}]`),
    );
    const fallback = cx.extension(
      "balancer",
      config.fallback_policy.policies[0]!.typed_extension_config,
    );
    return {
      byStream: true,
      compose: (cluster) =>
        new OverrideHost(reads, cluster, cluster.spread("", cluster.hosts, fallback)),
    };
  },
});

function reader({ header = "", metadata }: Static<typeof Source>, path: string): Read {
  if ((header === "") === (metadata === undefined))
    throw new ConfigError(path, "give one of header and metadata");
  if (metadata === undefined) {
    const name: HeaderName = nameOf(header, `${path}.header`);
    return ({ request }) => request.get(name);
  }
  const keys = metadata.path.map((step) => step.key);
  return (stream) => {
    const value = valueAt(stream.metadata.get(metadata.key), keys);
    return typeof value === "string" ? value : undefined;
  };
}
