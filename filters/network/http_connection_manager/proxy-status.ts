import {
  ConfigError,
  headerName,
  headerText,
  type ResponseHeaders,
  type Static,
  type StreamInfo,
  Type,
} from "@tsproxy/sdk";

/** Presence means that the header is written. */
export const ProxyStatusConfig = Type.Object({
  remove_details: Type.Boolean({ default: false }),
  remove_connection_termination_details: Type.Boolean({ default: false }),
  remove_response_flags: Type.Boolean({ default: false }),
  set_recommended_response_code: Type.Boolean({ default: false }),
  use_node_id: Type.Optional(Type.Boolean()),
  literal_proxy_name: Type.Optional(Type.String()),
});
export type ProxyStatusConfig = Static<typeof ProxyStatusConfig>;

const PROXY_STATUS = headerName("proxy-status");

/** Who this proxy may call itself. */
interface Names {
  readonly server: string;
  readonly node: string;
}

/** Says in `proxy-status` (RFC 9209) why a request has failed, and gives the response the code that the RFC recommends. */
export class ProxyStatus {
  readonly #config: ProxyStatusConfig;
  readonly #name: string;

  constructor(config: ProxyStatusConfig, path: string, names: Names) {
    const { use_node_id, literal_proxy_name } = config;
    if (use_node_id !== undefined && literal_proxy_name !== undefined)
      throw new ConfigError(path, "give one of use_node_id and literal_proxy_name");
    this.#config = config;
    // As in Envoy, `use_node_id: false` names the node as well.
    if (use_node_id !== undefined) this.#name = headerText(names.node, `${path}.use_node_id`);
    else if (literal_proxy_name === undefined) this.#name = headerText(names.server, "server_name");
    else this.#name = headerText(literal_proxy_name, `${path}.literal_proxy_name`);
  }

  /** Called with a response head that is complete otherwise. Does nothing without a flag that stands for an error. */
  complete(headers: ResponseHeaders, info: StreamInfo): void {
    const failure = FAILURES.find(([flag]) => info.flags.includes(flag));
    if (failure === undefined) return;
    const [, error, status] = failure;
    const own = `${this.#name}; error=${error}${this.#details(info)}`;
    headers.set(PROXY_STATUS, [...headers.getAll(PROXY_STATUS), own].join(", "));
    if (this.#config.set_recommended_response_code && status !== 0) headers.status = status;
  }

  #details({ responseCodeDetails, connectionTerminationDetails, flags }: StreamInfo): string {
    const config = this.#config;
    if (config.remove_details || responseCodeDetails === "") return "";
    const details = [responseCodeDetails];
    if (!config.remove_connection_termination_details && connectionTerminationDetails)
      details.push(connectionTerminationDetails);
    if (!config.remove_response_flags) details.push(flags.join(","));
    return `; details="${quoted(details.join("; "))}"`;
  }
}

/** What filters and OpenSSL call a reason becomes text that a quoted string can carry (RFC 9651 §3.3.3). */
function quoted(text: string): string {
  return text.replace(/["\\]/g, "\\$&").replace(/[^ -~]/g, "?");
}

/**
 * Response flags in Envoy's order of precedence: the error type that the flag stands for, and the code that RFC 9209 §2.3
 * recommends for it; 0: none.
 */
const FAILURES: readonly (readonly [flag: string, error: string, status: number])[] = [
  ["LH", "destination_unavailable", 503],
  ["UH", "destination_unavailable", 503],
  ["UT", "http_response_timeout", 504],
  ["LR", "connection_timeout", 504],
  ["UR", "connection_terminated", 502],
  ["UF", "connection_refused", 502],
  ["UC", "connection_terminated", 502],
  ["UO", "connection_limit_reached", 503],
  ["NR", "destination_not_found", 500],
  ["RL", "connection_limit_reached", 503],
  ["RLSE", "connection_limit_reached", 503],
  ["URX", "destination_unavailable", 503],
  ["SI", "http_response_timeout", 504],
  ["IH", "http_request_error", 0],
  ["DPE", "http_request_error", 0],
  ["UMSDR", "http_response_timeout", 504],
  ["NFCF", "proxy_configuration_error", 500],
  ["UPE", "http_protocol_error", 502],
  ["NC", "destination_unavailable", 503],
  ["DF", "dns_error", 502],
];
