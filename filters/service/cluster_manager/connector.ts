import type {
  Address,
  Connection,
  ConnectionHandler,
  ConnectOptions,
  HostSpec,
  SetupContext,
  TransportOptions,
} from "@tsproxy/sdk";
import type { ClusterConfig, ClusterOptions } from "./config.ts";
import { familyOf, interleave, Race } from "./happy-eyeballs.ts";
import type { HealthCheck } from "./health-config.ts";
import type { UpstreamHost } from "./host.ts";
import type { ClusterCells } from "./stats.ts";
import { Transports, throughTransport } from "./transports.ts";

/** Opens the connections of one cluster: with the transport of the host, from the source address of the config. */
export class Connector {
  readonly transports: Transports;
  readonly #cx: SetupContext;
  readonly #options: ClusterOptions;
  readonly #metadata: unknown;
  readonly #base: ConnectOptions;
  readonly #cells: () => ClusterCells;

  /** `cells`: returns the cluster's stats, created on first use. */
  constructor(
    cx: SetupContext,
    config: ClusterConfig,
    options: ClusterOptions,
    statPrefix: string,
    cells: () => ClusterCells,
  ) {
    this.#cx = cx;
    this.#options = options;
    this.#metadata = config.metadata;
    this.#cells = cells;
    this.transports = new Transports(cx, config, statPrefix);
    this.#base = {
      timeoutMs: options.connectTimeoutMs,
      keepAlive: options.keepAlive,
      // Another worker may connect in its place as soon as it is uncounted.
      awaitsClose: true,
      ...(config.per_connection_buffer_limit_bytes !== undefined && {
        bufferBytes: config.per_connection_buffer_limit_bytes,
      }),
    };
  }

  /**
   * Opens a connection to the host; if it has several addresses, to the first that connects. `chosen`: what its transport has to know
   * of the pool or the client.
   */
  connect(
    host: UpstreamHost,
    handler: ConnectionHandler,
    chosen: TransportOptions,
  ): Connection | Race {
    const options = throughTransport(this.#base, host.transport, {
      hostname: host.hostname,
      hostMetadata: filterMetadata(host.metadata),
      clusterMetadata: filterMetadata(this.#metadata),
      ...chosen,
    });
    const optionsFor = (address: Address) => this.#bound(options, address);
    const { address } = host;
    const others = host.spec.additionalAddresses ?? [];
    if (others.length === 0) return this.#cx.connect(address, handler, optionsFor(address));
    const addresses = interleave([address, ...others], this.#options.happyEyeballs);
    return new Race(this.#cx, addresses, handler, {
      timeoutMs: options.timeoutMs,
      optionsFor,
      onFurtherAttempt: () => {
        this.#cells().cxTotal.inc();
        host.cells.cxTotal.inc();
      },
    });
  }

  /** Options for a health check's connection: with the host's transport, or the one that the check's criteria select. */
  optionsForCheck(spec: HostSpec, address: Address, check: HealthCheck): ConnectOptions {
    const transport = this.transports.chooseForCheck(spec, check.transport_socket_match_criteria);
    const alpn = check.tls_options?.alpn_protocols;
    const options = throughTransport(this.#base, transport, {
      hostname: spec.hostname,
      ...(alpn !== undefined && { alpn }),
    });
    return this.#bound(options, address);
  }

  /** Source address for connections to `to`; undefined: the system chooses. */
  sourceFor(to: Address): Address | undefined {
    const { sources } = this.#options;
    if (sources.length === 0 || to.path !== undefined) return undefined;
    const family = familyOf(to);
    return sources.find((source) => familyOf(source) === family) ?? sources[0];
  }

  #bound(options: ConnectOptions, to: Address): ConnectOptions {
    const source = this.sourceFor(to);
    return source === undefined ? options : { ...options, bind: source };
  }
}

function filterMetadata(metadata: unknown): Readonly<Record<string, unknown>> | undefined {
  return (metadata as { readonly filter_metadata?: Readonly<Record<string, unknown>> } | undefined)
    ?.filter_metadata;
}
