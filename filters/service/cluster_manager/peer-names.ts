import {
  type BalancerContext,
  contextState,
  filterStateText,
  type HeaderName,
  headerName,
  type RequestHeaders,
  STATE,
  type Static,
  type TransportOptions,
  Type,
} from "@tsproxy/sdk";

export const UpstreamHttpOptions = Type.Object({
  /** Use the request's host as server name (SNI). */
  auto_sni: Type.Optional(Type.Boolean()),
  /** Require the request's host among the certificate's names. */
  auto_san_validation: Type.Optional(Type.Boolean()),
  /** A header used instead of `host` for the name. */
  override_auto_sni_header: Type.Optional(Type.String()),
});

/** Transport options that depend on the request or its client. A connection serves only requests with the same `key`. */
export interface PeerNames {
  readonly key: string;
  /** Limit for keys with pools at one host; absent: 256. */
  readonly most?: number;
  readonly options: Pick<TransportOptions, "serverName" | "subjectAltNames" | "downstream">;
}

/**
 * The peer names of a request or connection: what a filter has put into filter state, else what the cluster's config derives from
 * the request. Undefined: the transport's config applies.
 */
export function peerNamesOf(
  naming: PeerNaming | undefined,
  context: BalancerContext,
): PeerNames | undefined {
  const derived = naming?.of(context.head ?? context.stream?.request);
  const state = contextState(context);
  if (state === undefined || state.size === 0) return derived;
  const name = filterStateText(state.get(STATE.UPSTREAM_SERVER_NAME));
  const names = filterStateText(state.get(STATE.UPSTREAM_SUBJECT_ALT_NAMES));
  if (name === undefined && names === undefined) return derived;
  const serverName = name !== undefined && NAME.test(name) ? name : undefined;
  return {
    // Hosts and names may have spaces in them.
    key: [derived?.key, serverName, names].join("\n"),
    options: {
      ...derived?.options,
      ...(serverName !== undefined && { serverName }),
      ...(names !== undefined && { subjectAltNames: names.split(",") }),
    },
  };
}

/** IP addresses and invalid host names are not sent as server name (RFC 6066 §3). */
const ADDRESS = /^[0-9.]+$|:/;
const NAME = /^[!-~]{1,255}$/;

/** Derives peer names from request heads as they are sent to the upstream, after all rewriting. */
export class PeerNaming {
  readonly #asks: boolean;
  readonly #verifies: boolean;
  readonly #header: HeaderName | undefined;

  private constructor(config: Static<typeof UpstreamHttpOptions>) {
    this.#asks = config.auto_sni === true;
    this.#verifies = config.auto_san_validation === true;
    const { override_auto_sni_header: header = "" } = config;
    this.#header = header === "" ? undefined : headerName(header);
  }

  /** Undefined if peer names do not depend on requests. */
  static of(config: Static<typeof UpstreamHttpOptions> | undefined): PeerNaming | undefined {
    if (config?.auto_sni !== true && config?.auto_san_validation !== true) return undefined;
    return new PeerNaming(config);
  }

  /** The peer names of a request; undefined: the transport's config applies. */
  of(head: RequestHeaders | undefined): PeerNames | undefined {
    const override = this.#header && head?.get(this.#header);
    const host = withoutPort(override || (head?.authority ?? "")).toLowerCase();
    const serverName = this.#asks && !ADDRESS.test(host) && NAME.test(host) ? host : undefined;
    if (serverName === undefined && !this.#verifies) return undefined;
    const key = `${serverName ?? ""} ${this.#verifies ? host : ""}`;
    return {
      key,
      options: {
        ...(serverName !== undefined && { serverName }),
        ...(this.#verifies && { subjectAltNames: [host] }),
      },
    };
  }
}

function withoutPort(authority: string): string {
  if (authority.startsWith("[")) return authority.slice(1).split("]", 1)[0]!;
  return authority.replace(/:[0-9]*$/, "");
}
