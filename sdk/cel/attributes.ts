import { filterStateText } from "../filter-state.ts";
import type { FormatSource } from "../format.ts";
import { grpcStatusOf } from "../grpc-status.ts";
import { requestSize, responseSize, trailersSize } from "../head-size.ts";
import {
  type HeaderMap,
  headerName,
  type RequestHeaders,
  type ResponseHeaders,
} from "../headers.ts";
import type { StreamInfo } from "../http.ts";
import { type Address, formatAddress } from "../network.ts";
import { FLAG_NAMES } from "../response-flags.ts";
import { surroundings } from "../surroundings.ts";
import type { AlternativeName, Certificate, TlsInfo } from "../transport.ts";
import {
  CelMap,
  type CelValue,
  fromJson,
  NO_KEY,
  Span,
  StructMap,
  Timestamp,
  wireOf,
} from "./values.ts";

/** What attributes are read from: a stream, an access log entry or a connection. What depends on an absent field is no key. */
export interface CelSource {
  readonly info: Partial<StreamInfo>;
  readonly request?: RequestHeaders | undefined;
  readonly response?: ResponseHeaders | undefined;
  readonly trailers?: HeaderMap | undefined;
  readonly metadata?: Metadata | undefined;
  readonly routeMetadata?: Fields | undefined;
  readonly virtualHostMetadata?: Fields | undefined;
  readonly filterState?: ReadonlyMap<string, unknown> | undefined;
  readonly serverName?: string | undefined;
  readonly filterChainName?: string | undefined;
  readonly downstream?:
    | {
        readonly tls?: TlsInfo | undefined;
        readonly serverName?: string;
        readonly filterChainName?: string;
        readonly listener?: { readonly direction?: string; readonly metadata?: unknown };
      }
    | undefined;
  readonly route?: unknown;
}
type Fields = Readonly<Record<string, unknown>>;
type Metadata = ReadonlyMap<string, Fields>;

/** Reads one attribute; undefined: it has no value, which expressions see as a missing key. */
type Read = (source: CelSource) => CelValue | undefined;

/** A root such as `request`: a map of its attributes by name. */
class Attributes extends CelMap {
  readonly #reads: Readonly<Record<string, Read>>;
  readonly #source: CelSource;

  constructor(reads: Readonly<Record<string, Read>>, source: CelSource) {
    super();
    this.#reads = reads;
    this.#source = source;
  }
  get(key: CelValue): CelValue | undefined {
    if (typeof key !== "string" || !Object.hasOwn(this.#reads, key)) return undefined;
    return this.#reads[key]!(this.#source);
  }
  keys(): Iterable<CelValue> {
    return Object.keys(this.#reads).filter((name) => this.get(name) !== undefined);
  }
}

/** A map of headers and pseudo headers; names in any case. Several lines of one name are joined by commas, as in Envoy. */
class Headers extends CelMap {
  readonly #headers: HeaderMap | undefined;
  readonly #pseudo: Readonly<Record<string, string | undefined>>;

  constructor(
    headers: HeaderMap | undefined,
    pseudo: Readonly<Record<string, string | undefined>>,
  ) {
    super();
    this.#headers = headers;
    this.#pseudo = pseudo;
  }
  get(key: CelValue): CelValue | undefined {
    if (typeof key !== "string") return undefined;
    const name = key.toLowerCase();
    if (Object.hasOwn(this.#pseudo, name)) return this.#pseudo[name];
    if (!/^[!#$%&'*+.^_`|~0-9a-z-]+$/.test(name)) return undefined;
    const lines = this.#headers?.getAll(headerName(name));
    return lines === undefined || lines.length === 0 ? undefined : lines.join(",");
  }
  keys(): Iterable<CelValue> {
    const names = new Set(
      Object.keys(this.#pseudo).filter((name) => this.#pseudo[name] !== undefined),
    );
    for (const [name] of this.#headers ?? []) names.add(name.toLowerCase());
    if (names.has(":authority")) names.delete("host");
    return names;
  }
}

/** `config.core.v3.Metadata` */
class MetadataMessage extends CelMap {
  readonly #filterMetadata: Fields;

  constructor(filterMetadata: Fields) {
    super();
    this.#filterMetadata = filterMetadata;
  }
  get(key: CelValue): CelValue | undefined {
    return key === "filter_metadata" ? new StructMap(this.#filterMetadata) : undefined;
  }
  keys(): Iterable<CelValue> {
    return ["filter_metadata"];
  }
  override text(): string {
    return Object.keys(this.#filterMetadata)
      .sort()
      .map((key) => `filter_metadata { ${entryText(key, structText(this.#filterMetadata[key]))}} `)
      .join("");
  }
}

/** `config.core.v3.Locality` */
class LocalityMessage extends CelMap {
  readonly #locality: Locality;

  constructor(locality: Locality) {
    super();
    this.#locality = locality;
  }
  get(key: CelValue): CelValue | undefined {
    return isLocalityKey(key) ? wireOf(this.#locality[key] ?? "") : undefined;
  }
  override has(key: CelValue): boolean {
    return isLocalityKey(key) && (this.#locality[key] ?? "") !== "";
  }
  keys(): Iterable<CelValue> {
    return LOCALITY_KEYS.filter((key) => this.has(key));
  }
  override text(): string {
    return LOCALITY_KEYS.filter((key) => this.has(key))
      .map((key) => `${key}: ${JSON.stringify(this.#locality[key])} `)
      .join("");
  }
}
type Locality = NonNullable<NonNullable<StreamInfo["host"]>["locality"]>;
const LOCALITY_KEYS = ["region", "zone", "sub_zone"] as const;
const isLocalityKey = (key: CelValue): key is (typeof LOCALITY_KEYS)[number] =>
  LOCALITY_KEYS.some((known) => known === key);

/** Prints a Struct in protobuf's text format, on one line. */
function structText(fields: unknown): string {
  return Object.entries((fields ?? {}) as Fields)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, value]) => `fields { ${entryText(key, valueText(value))}} `)
    .join("");
}
const entryText = (key: string, value: string) => `key: ${JSON.stringify(key)} value { ${value}} `;

function valueText(value: unknown): string {
  if (typeof value === "string") return `string_value: ${JSON.stringify(value)} `;
  if (typeof value === "number") return `number_value: ${value} `;
  if (typeof value === "boolean") return `bool_value: ${value} `;
  if (Array.isArray(value))
    return `list_value { ${value.map((item) => `values { ${valueText(item)}} `).join("")}} `;
  return typeof value === "object" && value !== null
    ? `struct_value { ${structText(value)}} `
    : "null_value: NULL_VALUE ";
}

const REFERER = headerName("referer");
const USER_AGENT = headerName("user-agent");
const REQUEST_ID = headerName("x-request-id");
const CONTENT_LENGTH = headerName("content-length");

const nonEmpty = (text: string | undefined): string | undefined => (text === "" ? undefined : text);
const wire = (text: string | undefined): string | undefined =>
  text === undefined || text === "" ? undefined : wireOf(text);
const int = (value: number | undefined): bigint | undefined =>
  value === undefined ? undefined : BigInt(Math.trunc(value));
const span = (ms: number | undefined): Span | undefined =>
  ms === undefined || ms < 0 ? undefined : new Span(ms);
const addressOf = (address: Address | undefined) =>
  address === undefined ? undefined : formatAddress(address);
const portOf = (address: Address | undefined) =>
  address === undefined || address.path !== undefined ? undefined : BigInt(address.port);

/** The source for functions that access log formats use too. Those called here do not read what a connection lacks. */
const asLogged = (source: CelSource) => source as unknown as FormatSource;

function requestBytes({ request, info }: CelSource): number {
  const told = request?.get(CONTENT_LENGTH);
  return told !== undefined && /^[0-9]{1,15}$/.test(told)
    ? Number(told)
    : (info.bytesReceived ?? 0);
}

const REQUEST: Readonly<Record<string, Read>> = {
  path: ({ request }) => nonEmpty(request?.path),
  url_path: ({ request }) => nonEmpty(request?.path.replace(/[?#].*$/s, "")),
  host: ({ request }) => nonEmpty(request?.authority),
  scheme: ({ request }) => (request?.path ? nonEmpty(request.scheme) : undefined),
  method: ({ request }) => nonEmpty(request?.method),
  headers: ({ request }) => new Headers(request, request === undefined ? {} : pseudoOf(request)),
  referer: ({ request }) => request?.get(REFERER),
  useragent: ({ request }) => request?.get(USER_AGENT),
  time: ({ info }) => (info.startTime === undefined ? undefined : new Timestamp(info.startTime)),
  id: ({ request }) => nonEmpty(request?.get(REQUEST_ID)),
  protocol: ({ info }) => nonEmpty(info.protocol),
  duration: ({ info }) => span(info.duration),
  size: (source) => int(requestBytes(source)),
  total_size: (source) =>
    int(
      (source.info.bytesReceived ?? 0) + (source.request?.path ? requestSize(asLogged(source)) : 0),
    ),
  query: ({ request }) => {
    if (request === undefined || request.path === "") return undefined;
    const at = request.path.indexOf("?");
    return at < 0 ? "" : request.path.slice(at + 1).replace(/#.*$/s, "");
  },
};

function pseudoOf(request: RequestHeaders): Readonly<Record<string, string | undefined>> {
  const authority = nonEmpty(request.authority);
  return {
    ":authority": authority,
    host: authority,
    ":path": nonEmpty(request.path),
    ":method": nonEmpty(request.method),
    ":scheme": request.path === "" ? undefined : nonEmpty(request.scheme),
  };
}

/** Envoy's response flags, one bit each, with Envoy's numbers. */
const FLAG_BITS = new Map(Object.keys(FLAG_NAMES).map((flag, k) => [flag, 1n << BigInt(k)]));

const RESPONSE: Readonly<Record<string, Read>> = {
  code: ({ info }) => int(info.responseCode || undefined),
  code_details: ({ info }) => wire(info.responseCodeDetails),
  flags: ({ info }) =>
    (info.flags ?? []).reduce((bits, flag) => bits | (FLAG_BITS.get(flag) ?? 0n), 0n),
  grpc_status: (source) => int(grpcStatusOf(asLogged(source))),
  headers: ({ response }) =>
    new Headers(response, response === undefined ? {} : { ":status": String(response.status) }),
  trailers: ({ trailers }) => new Headers(trailers, {}),
  size: ({ info }) => int(info.bytesSent ?? 0),
  total_size: (source) =>
    int(
      (source.info.bytesSent ?? 0) +
        (source.response === undefined ? 0 : responseSize(asLogged(source))) +
        trailersSize(asLogged(source)),
    ),
  backend_latency: ({ info }) => {
    const { upstreamTxBegin = -1, upstreamRxEnd = -1 } = info;
    return upstreamTxBegin < 0 || upstreamRxEnd < 0
      ? undefined
      : span(upstreamRxEnd - upstreamTxBegin);
  },
};

const name = (certificate: Certificate | undefined, type: AlternativeName["type"]) =>
  wire(certificate?.names.find((each) => each.type === type)?.value);

/** Attributes of the TLS connection on one side, downstream or upstream. */
function tlsReads(tls: (source: CelSource) => TlsInfo | undefined): Readonly<Record<string, Read>> {
  return {
    tls_version: (source) => nonEmpty(tls(source)?.version),
    subject_local_certificate: (source) => wire(tls(source)?.local?.subject),
    subject_peer_certificate: (source) => wire(tls(source)?.peer?.subject),
    dns_san_local_certificate: (source) => name(tls(source)?.local, "DNS"),
    dns_san_peer_certificate: (source) => name(tls(source)?.peer, "DNS"),
    uri_san_local_certificate: (source) => name(tls(source)?.local, "URI"),
    uri_san_peer_certificate: (source) => name(tls(source)?.peer, "URI"),
    sha256_peer_certificate_digest: (source) => nonEmpty(tls(source)?.peer?.sha256),
  };
}

const CONNECTION: Readonly<Record<string, Read>> = {
  ...tlsReads(({ downstream }) => downstream?.tls),
  id: ({ info }) => int(info.connectionId),
  mtls: ({ downstream }) => downstream?.tls?.peer !== undefined,
  requested_server_name: ({ serverName, downstream }) =>
    wireOf(serverName || (downstream?.serverName ?? "")),
  transport_failure_reason: ({ info }) => wire(info.downstreamTransportFailure),
  termination_details: ({ info }) => wire(info.connectionTerminationDetails),
};

const UPSTREAM: Readonly<Record<string, Read>> = {
  ...tlsReads(({ info }) => info.upstreamTls),
  address: ({ info }) => addressOf(info.upstreamHost),
  port: ({ info }) => portOf(info.upstreamHost),
  local_address: ({ info }) => addressOf(info.upstreamLocalAddress),
  locality: ({ info }) =>
    info.host === undefined ? undefined : new LocalityMessage(info.host.locality ?? {}),
  transport_failure_reason: ({ info }) =>
    info.upstreamHost === undefined ? undefined : wireOf(info.upstreamTransportFailure ?? ""),
  request_attempt_count: ({ info }) => int(info.attempts ?? 0),
  cx_pool_ready_duration: ({ info }) =>
    (info.upstreamPoolReady ?? -1) < 0 ? undefined : span(info.upstreamPoolReady ?? 0),
};

const ends = (
  of: (info: Partial<StreamInfo>) => Address | undefined,
): Readonly<Record<string, Read>> => ({
  address: ({ info }) => addressOf(of(info)),
  port: ({ info }) => portOf(of(info)),
});

/** Makes a message of metadata as configs have it: `{ filter_metadata: { … } }`. */
const message = (metadata: unknown) =>
  new MetadataMessage(
    ((metadata as { filter_metadata?: Fields } | undefined)?.filter_metadata ?? {}) as Fields,
  );
/** Returns the value if a route was found, else undefined. */
const routed = (source: CelSource, value: CelValue) =>
  source.info.virtualHostName ? value : undefined;

const XDS: Readonly<Record<string, Read>> = {
  node: () => fromJson(surroundings.node),
  cluster_name: ({ info }) => wire(info.clusterName),
  cluster_metadata: ({ info }) =>
    info.cluster === undefined ? undefined : message(info.cluster.metadata),
  route_name: (source) => routed(source, wireOf(source.info.routeName ?? "")),
  route_metadata: (source) => {
    const ofRoute = (source.route as { readonly routeMetadata?: Fields } | undefined)
      ?.routeMetadata;
    return routed(source, new MetadataMessage(source.routeMetadata ?? ofRoute ?? {}));
  },
  virtual_host_name: (source) => routed(source, wireOf(source.info.virtualHostName ?? "")),
  virtual_host_metadata: (source) =>
    routed(source, new MetadataMessage(source.virtualHostMetadata ?? {})),
  listener_metadata: ({ downstream }) => message(downstream?.listener?.metadata),
  listener_direction: ({ downstream }) =>
    BigInt({ INBOUND: 1, OUTBOUND: 2 }[downstream?.listener?.direction ?? ""] ?? 0),
  filter_chain_name: ({ filterChainName, downstream }) =>
    wireOf(filterChainName ?? downstream?.filterChainName ?? ""),
  upstream_host_metadata: ({ info }) =>
    info.host === undefined ? undefined : message(info.host.metadata),
  // In tsproxy localities have no metadata.
  upstream_host_locality_metadata: ({ info }) => (info.host === undefined ? undefined : null),
};

/** Filter state by key: texts as they are, objects as `String()` prints them. */
class FilterState extends CelMap {
  readonly #state: ReadonlyMap<string, unknown>;

  constructor(state: ReadonlyMap<string, unknown>) {
    super();
    this.#state = state;
  }
  get(key: CelValue): CelValue | undefined {
    const value = typeof key === "string" ? this.#state.get(key) : undefined;
    return value === undefined ? undefined : wireOf(filterStateText(value) ?? "");
  }
  keys(): Iterable<CelValue> {
    return this.#state.keys();
  }
}
const NO_STATE: ReadonlyMap<string, unknown> = new Map();

const attributes = (reads: Readonly<Record<string, Read>>) => (source: CelSource) =>
  new Attributes(reads, source);

const ROOTS: Readonly<Record<string, (source: CelSource) => CelValue>> = {
  request: attributes(REQUEST),
  response: attributes(RESPONSE),
  connection: attributes(CONNECTION),
  upstream: attributes(UPSTREAM),
  source: attributes(ends((info) => info.downstreamRemoteAddress)),
  destination: attributes(ends((info) => info.downstreamLocalAddress)),
  xds: attributes(XDS),
  metadata: ({ metadata }) => new MetadataMessage(Object.fromEntries(metadata ?? [])),
  filter_state: ({ filterState }) => new FilterState(filterState ?? NO_STATE),
  // tsproxy keeps no filter state upstream: the map is empty.
  upstream_filter_state: ({ info }) =>
    info.upstreamHost === undefined ? NO_KEY : new FilterState(NO_STATE),
};

/** Returns how to read a root, the name that an expression begins with; undefined: there is no such root. */
export function rootOf(name: string): ((source: CelSource) => CelValue) | undefined {
  return Object.hasOwn(ROOTS, name) ? ROOTS[name] : undefined;
}
