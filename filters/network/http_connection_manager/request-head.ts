// Hot path: every request head passes here before the filters see it. An option that is off costs one bit test.
import {
  type DownstreamConnection,
  FLAG,
  HeaderLine,
  type HeaderMap,
  type HeaderName,
  headerName,
  headerText,
  KNOWN_NAMES,
  type Reply,
  type RequestHeaders,
  reply,
  SPAN,
} from "@tsproxy/sdk";
import { appendForwardedFor, type Client, ClientAddress } from "./client-address.ts";
import { ClientCert, editClientCert } from "./client-cert.ts";
import type { Config } from "./config.ts";
import {
  FOUND,
  hasEscapedSlash,
  mergeSlashes,
  normalizePath,
  scanPath,
  unescapeSlashes,
} from "./path.ts";
import { portAt } from "./redirect.ts";
import { isReferer } from "./referer.ts";
import type { RequestIdLine } from "./request-id.ts";
import { isGrpc } from "./route-match.ts";
import type { RouteTable } from "./route-table.ts";
import type { HcmStats } from "./stats.ts";

const bit = (name: (typeof KNOWN_NAMES)[number]): number => 1 << KNOWN_NAMES.indexOf(name);
const HOST_BIT = bit("host");
const EXPECT_BIT = bit("expect");
const REFERER_BIT = bit("referer");
const FORWARDED_FOR_BIT = bit("x-forwarded-for");
const FORWARDED_PROTO_BIT = bit("x-forwarded-proto");
const REQUEST_ID_BIT = bit("x-request-id");
const INTERNAL_BIT = bit("x-envoy-internal");
const EXPECTED_TIMEOUT_BIT = bit("x-envoy-expected-rq-timeout-ms");

const EXPECT = headerName("expect");
const REFERER = headerName("referer");
const FORWARDED_PROTO = headerName("x-forwarded-proto");
const FORWARDED_PORT = headerName("x-forwarded-port");
const REQUEST_ID = headerName("x-request-id");
const USER_AGENT = headerName("user-agent");
const VIA = headerName("via");
const INTERNAL = headerName("x-envoy-internal");
const EXTERNAL_ADDRESS = headerName("x-envoy-external-address");
const EXPECTED_TIMEOUT = headerName("x-envoy-expected-rq-timeout-ms");
const SERVICE_CLUSTER = headerName("x-envoy-downstream-service-cluster");
const SERVICE_NODE = headerName("x-envoy-downstream-service-node");

const INTERNAL_LINE = new HeaderLine("x-envoy-internal", "true");
const PROTO_HTTP = new HeaderLine("x-forwarded-proto", "http");
const PROTO_HTTPS = new HeaderLine("x-forwarded-proto", "https");

/** Headers that are removed from requests of external clients. */
const INTERNAL_ONLY = [
  "x-envoy-retry-on",
  "x-envoy-retry-grpc-on",
  "x-envoy-max-retries",
  "x-envoy-retriable-status-codes",
  "x-envoy-retriable-header-names",
  "x-envoy-upstream-alt-stat-name",
  "x-envoy-upstream-rq-timeout-ms",
  "x-envoy-upstream-rq-per-try-timeout-ms",
  "x-envoy-upstream-rq-timeout-alt-response",
  "x-envoy-upstream-stream-duration-ms",
  "x-envoy-force-trace",
  "x-envoy-ip-tags",
  "x-envoy-original-url",
  "x-envoy-hedge-on-per-try-timeout",
];
/** Removed from them too if `use_remote_address` is set. */
const EDGE_ONLY = [
  "x-envoy-decorator-operation",
  "x-envoy-downstream-service-cluster",
  "x-envoy-downstream-service-node",
  "x-envoy-original-path",
  "x-envoy-original-host",
];
const sensitive = new Map<number, { readonly name: HeaderName; readonly edgeOnly: boolean }>();
for (const text of INTERNAL_ONLY) {
  const name = headerName(text);
  sensitive.set(name.hash, { name, edgeOnly: false });
}
for (const text of EDGE_ONLY) {
  const name = headerName(text);
  sensitive.set(name.hash, { name, edgeOnly: true });
}

const MISSING_HOST = reply(400, { details: "missing_host_header" });
const MISSING_PATH = reply(404, { details: "missing_path_rejected" });
const NO_PATH = reply(404, { details: "absolute_path_rejected" });
const BAD_PATH = reply(400, { details: "path_normalization_failed" });

/** What each request head takes from its connection. Made once for each connection and config. */
export class Peer {
  readonly direct: Client;
  readonly forwardedFor: string;
  readonly forwardedForLine: HeaderLine | undefined;
  readonly tls: boolean;
  /** What X-Forwarded-Proto says of its requests, unless somebody in front is trusted to know better. */
  readonly schemeLine: HeaderLine;
  readonly localPort: number;
  readonly clientCert: ClientCert;

  constructor(connection: DownstreamConnection, head: RequestHead) {
    const { addresses } = head;
    this.direct = addresses.direct(connection);
    this.forwardedFor = addresses.forwardedFor(connection);
    this.forwardedForLine =
      this.forwardedFor === "" ? undefined : new HeaderLine("x-forwarded-for", this.forwardedFor);
    this.tls = connection.secure === true;
    this.schemeLine = head.schemeOf(connection) === "https" ? PROTO_HTTPS : PROTO_HTTP;
    this.localPort = connection.localAddress.port;
    this.clientCert = new ClientCert(connection);
  }
}

/** Checks and completes request heads, in Envoy's order. */
export class RequestHead {
  readonly addresses: ClientAddress;
  /** Set by `edit`: the answer of an `original_ip_detection_extensions` entry that refuses the client; undefined: none. */
  refusal: Reply | undefined = undefined;
  readonly #config: Config;
  readonly #stats: HcmStats;
  readonly #rewritesPath: boolean;
  readonly #unescapes: boolean;
  readonly #stripsHost: boolean;
  readonly #schemeLine: HeaderLine | undefined;
  readonly #via: string;
  readonly #serviceCluster: string;
  readonly #serviceNode: string;

  constructor(
    config: Config,
    node: { readonly id: string; readonly cluster: string; readonly address?: string },
    stats: HcmStats,
  ) {
    this.addresses = new ClientAddress(config, node.address);
    this.#config = config;
    this.#stats = stats;
    const action = config.path_with_escaped_slashes_action;
    this.#unescapes = action !== "KEEP_UNCHANGED" && action !== "IMPLEMENTATION_SPECIFIC_DEFAULT";
    this.#rewritesPath = config.normalize_path || config.merge_slashes || this.#unescapes;
    this.#stripsHost =
      config.strip_any_host_port ||
      config.strip_matching_host_port ||
      config.strip_trailing_host_dot;
    const scheme = config.scheme_header_transformation?.scheme_to_overwrite ?? "";
    this.#schemeLine =
      scheme === ""
        ? undefined
        : new HeaderLine("x-forwarded-proto", headerText(scheme, "scheme_header_transformation"));
    this.#via = headerText(config.via, "via");
    const own = config.add_user_agent ? node : { id: "", cluster: "" };
    this.#serviceCluster = headerText(own.cluster, "add_user_agent");
    this.#serviceNode = headerText(own.id, "add_user_agent");
  }

  /** The scheme that requests of the connection came by. */
  schemeOf(connection: DownstreamConnection): "http" | "https" {
    const ports = this.#config.forward_proto_config;
    // As in Envoy, the port of the listener's own address says nothing.
    if (ports !== undefined && connection.localAddressRestored === true) {
      const { port } = connection.localAddress;
      if (ports.https_destination_ports.includes(port)) return "https";
      if (ports.http_destination_ports.includes(port)) return "http";
    }
    return connection.secure === true ? "https" : "http";
  }

  /** Checks and normalizes host and path before headers are added. Returns the answer to a bad request; undefined: it is good. */
  check(headers: RequestHeaders, isConnect: boolean, peer: Peer): Reply | undefined {
    if ((headers.present & HOST_BIT) === 0 && headers.authority === undefined) return MISSING_HOST;
    if (!isConnect) {
      const answer = this.#checkPath(headers);
      if (answer !== undefined) return answer;
    }
    if (this.#stripsHost) this.#stripHost(headers, peer);
    return undefined;
  }

  #checkPath(headers: RequestHeaders): Reply | undefined {
    if (headers.pathEdited ? headers.path === "" : headers.pathEnd === headers.pathAt)
      return MISSING_PATH;
    const first = headers.pathEdited
      ? headers.path.charCodeAt(0)
      : headers.memory[headers.base + headers.pathAt];
    if (first !== 47) {
      this.#stats.rqNonRelativePath.inc();
      return NO_PATH;
    }
    const found = scanPath(headers);
    if (found === 0) return undefined;
    if (found === FOUND.FRAGMENT) return this.#badPath();
    return this.#rewritesPath ? this.#rewritePath(headers) : undefined;
  }

  #rewritePath(headers: RequestHeaders): Reply | undefined {
    const before = headers.path;
    const at = before.indexOf("?");
    let path: string | undefined = at < 0 ? before : before.slice(0, at);
    const query = at < 0 ? "" : before.slice(at);
    let redirects = false;
    if (this.#unescapes && hasEscapedSlash(path)) {
      const action = this.#config.path_with_escaped_slashes_action;
      if (action === "REJECT_REQUEST") {
        // As in Envoy, logs show the path with its slashes unescaped.
        headers.path = unescapeSlashes(path) + query;
        return this.#badPath();
      }
      redirects = action === "UNESCAPE_AND_REDIRECT";
      path = unescapeSlashes(path);
    }
    if (this.#config.normalize_path) path = normalizePath(path);
    if (path === undefined) return this.#badPath();
    if (this.#config.merge_slashes) path = mergeSlashes(path);
    const after = path + query;
    if (after !== before) headers.path = after;
    if (!redirects) return undefined;
    if (isGrpc(headers)) return this.#badPath();
    this.#stats.rqRedirectedWithNormalizedPath.inc();
    return reply(307, { headers: [["location", after]], details: "path_normalization_failed" });
  }

  #badPath(): Reply {
    this.#stats.rqFailedPathNormalization.inc();
    return BAD_PATH;
  }

  #stripHost(headers: RequestHeaders, peer: Peer): void {
    const before = headers.authority ?? "";
    let host = before;
    const colon = portAt(host);
    let port = colon < 0 ? "" : host.slice(colon);
    if (colon >= 0) host = host.slice(0, colon);
    const matches = port === `:${peer.localPort}`;
    const any = this.#config.strip_any_host_port && isPort(port);
    if (any || (this.#config.strip_matching_host_port && matches)) {
      port = "";
    }
    if (this.#config.strip_trailing_host_dot && host.endsWith(".")) host = host.slice(0, -1);
    if (host + port !== before) headers.authority = host + port;
  }

  /** Adds, replaces and removes the headers that the proxy vouches for. Returns the client that sent the request. */
  edit(
    headers: RequestHeaders,
    peer: Peer,
    requestId: RequestIdLine,
    table: RouteTable | undefined,
  ): Client {
    const present = headers.present;
    const config = this.#config;
    this.refusal = undefined;
    if ((present & EXPECT_BIT) !== 0 && !config.proxy_100_continue) removeContinue(headers);
    if ((present & REFERER_BIT) !== 0) checkReferer(headers);
    const hasFor = (present & FORWARDED_FOR_BIT) !== 0;
    const client = this.addresses.detects
      ? this.#detect(headers, peer)
      : hasFor
        ? this.addresses.behind(headers, peer.direct)
        : peer.direct;
    // As in Envoy, the head of a request that is refused here stays as it is.
    if (this.refusal !== undefined) return client;
    if (peer.forwardedForLine !== undefined) {
      if (hasFor) appendForwardedFor(headers, peer.forwardedFor);
      else headers.appendLine(peer.forwardedForLine);
    }
    this.#setScheme(headers, peer);
    editClientCert(headers, peer.clientCert, config);
    this.#removeSensitive(headers, client, table);
    if (client.internal) headers.appendLine(INTERNAL_LINE);
    if (config.add_user_agent) this.#addUserAgent(headers);
    if (this.#via !== "") appendVia(headers, this.#via);
    const atEdge = config.use_remote_address && !client.internal;
    if (atEdge && client.address.path === undefined)
      headers.replace(EXTERNAL_ADDRESS, client.address.ip);
    if (config.generate_request_id) {
      const keeps =
        (present & REQUEST_ID_BIT) !== 0 && (!atEdge || config.preserve_external_request_id);
      if (!keeps || headers.get(REQUEST_ID) === "") {
        requestId.renew();
        if ((present & REQUEST_ID_BIT) !== 0) headers.replace(REQUEST_ID, requestId.value);
        else headers.appendLine(requestId);
      }
    }
    return client;
  }

  #detect(headers: RequestHeaders, peer: Peer): Client {
    const found = this.addresses.detect(headers, peer.direct);
    if (found.refusal !== undefined) {
      this.refusal = found.refusal;
      this.#stats.rqRejectedViaIpDetection.inc();
      return peer.direct;
    }
    if (found.appends) appendForwardedFor(headers, this.addresses.textOf(peer.direct.address));
    return found.client;
  }

  /**
   * As in Envoy, a scheme of the client's own (`:scheme`, or that of an absolute URL) stays, whatever X-Forwarded-Proto says; only
   * `scheme_to_overwrite` replaces it.
   */
  #setScheme(headers: RequestHeaders, peer: Peer): void {
    const config = this.#config;
    // In HTTP/2 a CONNECT without a path has no `:scheme` either; codec/http1 leaves it empty but for absolute URLs.
    const isGiven =
      headers.pseudoOrder !== 0 ? headers.pathEnd > headers.pathAt : headers.scheme !== "";
    const given = isGiven && this.#schemeLine === undefined ? headers.scheme : undefined;
    const present = (headers.present & FORWARDED_PROTO_BIT) !== 0;
    const distrusted = config.use_remote_address && config.xff_num_trusted_hops === 0;
    const line = this.#schemeLine ?? peer.schemeLine;
    headers.scheme = line.value;
    if (!present) headers.appendLine(line);
    else if (distrusted || this.#schemeLine !== undefined)
      headers.replace(FORWARDED_PROTO, line.value);
    else {
      const value = headers.get(FORWARDED_PROTO)?.toLowerCase();
      if (value === "http" || value === "https") headers.scheme = value;
    }
    if (given !== undefined) headers.scheme = given;
    if (!config.append_x_forwarded_port) return;
    const trusted = config.use_remote_address && config.xff_num_trusted_hops === 0;
    if (trusted || !headers.has(FORWARDED_PORT)) {
      headers.replace(FORWARDED_PORT, String(peer.localPort));
    }
  }

  /** Removes headers that are obeyed from internal clients only. */
  #removeSensitive(headers: RequestHeaders, client: Client, table: RouteTable | undefined): void {
    if ((headers.present & INTERNAL_BIT) !== 0) headers.remove(INTERNAL);
    if (client.internal) return;
    if ((headers.present & EXPECTED_TIMEOUT_BIT) !== 0) headers.remove(EXPECTED_TIMEOUT);
    // Of lines that early mutations have set there are no spans.
    if (this.#config.early_header_mutation_extensions.length > 0) {
      for (const { name, edgeOnly } of sensitive.values())
        if (!edgeOnly || this.#config.use_remote_address) headers.remove(name);
    }
    const { spans, memory, base } = headers;
    const end = headers.count * SPAN;
    for (let i = 0; i < end; i += SPAN) {
      if ((spans[i + 5]! & FLAG.KNOWN) !== 0) continue;
      const at = base + spans[i]!;
      // `x-envoy-`: three of its bytes tell it from nearly every other name.
      if (memory[at] !== 120 || memory[at + 2] !== 101 || memory[at + 7] !== 45) continue;
      const found = sensitive.get(spans[i + 4]!);
      if (found === undefined || (found.edgeOnly && !this.#config.use_remote_address)) continue;
      headers.remove(found.name);
    }
    if (table === undefined) return;
    const { internalOnlyHeaders } = table;
    for (let k = 0; k < internalOnlyHeaders.length; k++) headers.remove(internalOnlyHeaders[k]!);
  }

  #addUserAgent(headers: RequestHeaders): void {
    const cluster = this.#serviceCluster;
    headers.replace(SERVICE_CLUSTER, cluster);
    if ((headers.get(USER_AGENT) ?? "") === "") headers.replace(USER_AGENT, cluster);
    if (this.#serviceNode !== "") headers.replace(SERVICE_NODE, this.#serviceNode);
  }
}

/** Removes `100-continue`, which is answered here. Other expectations are for the upstream to answer. */
function removeContinue(headers: RequestHeaders): void {
  if (headers.get(EXPECT)?.toLowerCase() === "100-continue") headers.remove(EXPECT);
}

/** Removes a Referer that is not valid. */
function checkReferer(headers: RequestHeaders): void {
  const at = headers.find(REFERER);
  if (at < 0) return;
  const { memory, base, spans } = headers;
  const i = at * SPAN;
  if (!isReferer(memory, base + spans[i + 2]!, base + spans[i + 3]!)) headers.remove(REFERER);
}

/** Appends an entry to `via`: the lines become one. */
export function appendVia(headers: HeaderMap, via: string): void {
  const before = headers.getAll(VIA);
  if (before.length === 0) headers.appendLine(new HeaderLine("via", via));
  else headers.replace(VIA, [...before, via].join(", "));
}

const MOST_OF_PORT = 0xffff_ffff;

/** Whether Envoy takes what stands behind a host's name, with its colon, for a port: any number of 32 bits. */
function isPort(text: string): boolean {
  return /^:\+?\d+$/.test(text) && Number(text.slice(1)) <= MOST_OF_PORT;
}
