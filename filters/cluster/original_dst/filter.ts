import {
  type Address,
  type BalancerContext,
  ConfigError,
  type Counter,
  contextState,
  Duration,
  defineCluster,
  filterStateText,
  formatAddress,
  type HeaderName,
  headerName,
  isIp,
  type ProvidedBalancer,
  type ProvidedHosts,
  parseIpPort,
  type SetupContext,
  STATE,
  type Static,
  type Timer,
  Type,
  UInt32,
  valueAt,
} from "@tsproxy/sdk";

const Config = Type.Object({
  name: Type.String({ default: "" }),
  cleanup_interval: Duration({ default: 5_000 }),
  original_dst_lb_config: Type.Optional(
    Type.Object({
      use_http_header: Type.Optional(Type.Boolean()),
      http_header_name: Type.Optional(Type.String()),
      upstream_port_override: Type.Optional(UInt32({ maximum: 65_535 })),
      metadata_key: Type.Optional(
        Type.Object({
          key: Type.String({ minLength: 1 }),
          path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
        }),
      ),
    }),
  ),
  load_assignment: Type.Optional(Type.Unknown()),
});
type Config = Static<typeof Config>;

/** Intervals after which the control thread drops a host that no worker tells of any more. */
const MISSED_REPORTS = 2;

/** Sends each request where its connection was going before it was redirected here, or where a header says. */
class OriginalDestination implements ProvidedBalancer {
  /** Hosts are called after the cluster and their address, as in Envoy. */
  readonly #name: string;
  readonly #own: ProvidedHosts;
  readonly #cx: SetupContext;
  readonly #header: HeaderName | undefined;
  readonly #metadata: { readonly key: string; readonly path: readonly string[] } | undefined;
  readonly #port: number | undefined;
  readonly #everyMs: number;
  /** Workers tell the control thread of their hosts, for stats and admin. */
  readonly #topic: string;
  readonly #sweep: Timer;
  readonly #invalid: Counter;

  constructor(config: Config, own: ProvidedHosts, cx: SetupContext) {
    const options = config.original_dst_lb_config ?? {};
    this.#name = config.name;
    this.#own = own;
    this.#cx = cx;
    this.#header =
      options.use_http_header === true
        ? headerName(options.http_header_name || "x-envoy-original-dst-host")
        : undefined;
    const key = options.metadata_key;
    this.#metadata = key && { key: key.key, path: key.path.map((step) => step.key) };
    this.#port = options.upstream_port_override;
    this.#invalid = own.stats.counter("original_dst_host_invalid");
    this.#everyMs = config.cleanup_interval ?? 5_000;
    this.#topic = `original_dst/${config.name}`;
    this.#sweep = cx.timer(() => this.#onSweep());
    this.#sweep.arm(this.#everyMs);
    if (cx.role === "control")
      cx.subscribe(this.#topic, (list) => this.#onReport(list as Address[]));
  }

  choose(context: BalancerContext) {
    const address = this.#addressOf(context);
    if (address === undefined) return undefined;
    const { ip, port } = address;
    const to = { ip, port: this.#port ?? port };
    const key = formatAddress(to);
    const known = this.#own.hosts.length;
    const host = this.#own.at(to, this.#name + key);
    if (this.#own.hosts.length > known) this.#cx.publish(this.#topic, [to]);
    return host;
  }

  dispose(): void {
    this.#sweep.cancel();
  }

  #onSweep(): void {
    const isControl = this.#cx.role === "control";
    this.#own.sweep(this.#cx.now() - this.#everyMs * (isControl ? MISSED_REPORTS : 1));
    const { hosts } = this.#own;
    if (!isControl && hosts.length > 0)
      this.#cx.publish(
        this.#topic,
        hosts.map((host) => host.address),
      );
    this.#sweep.arm(this.#everyMs);
  }

  #onReport(addresses: readonly Address[]): void {
    for (const address of addresses) this.#own.at(address, this.#name + formatAddress(address));
  }

  #addressOf(context: BalancerContext): Address | undefined {
    const { stream } = context;
    const set = contextState(context)?.get(STATE.ORIGINAL_DST_ADDRESS);
    if (set !== undefined) return parseIpPort(filterStateText(set) ?? "");
    if (this.#metadata !== undefined && stream !== undefined) {
      const said = valueAt(stream.metadata.get(this.#metadata.key), this.#metadata.path);
      if (typeof said === "string") return this.#parsed(said);
    }
    if (this.#header !== undefined && stream !== undefined) {
      const said = stream.request.get(this.#header);
      if (said !== undefined) return this.#parsed(said);
    }
    // An address that nobody restored is our own: the request would come back to us.
    const info = stream?.info;
    if (info?.downstreamLocalAddressRestored === true) return info.downstreamLocalAddress;
    const { downstream } = context;
    return downstream?.localAddressRestored === true ? downstream.localAddress : undefined;
  }

  #parsed(text: string): Address | undefined {
    const match = /^(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})$/.exec(text.trim());
    const ip = match?.[1] ?? match?.[2] ?? "";
    const port = Number(match?.[3]);
    if (match !== null && isIp(ip) && port <= 65_535) return { ip, port };
    this.#invalid.inc();
    return undefined;
  }
}

export default defineCluster({
  name: "envoy.cluster.original_dst",
  config: Config,
  setup(config: Config, cx) {
    if (config.load_assignment !== undefined)
      throw new ConfigError(
        "load_assignment",
        "ORIGINAL_DST clusters must have no load assignment configured; remove it",
      );
    return {
      initialHosts: [],
      provide: (own) => new OriginalDestination(config, own, cx),
    };
  },
});
