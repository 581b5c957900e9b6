import {
  type HeaderName,
  headerName,
  type RequestHeaders,
  type Static,
  type TransportOptions,
  Type,
} from "@tsproxy/sdk";

export const UpstreamHttpOptions = Type.Object({
  /** The request's host is the name to ask for (SNI). */
  auto_sni: Type.Optional(Type.Boolean()),
  /** The certificate has to be of the request's host. */
  auto_san_validation: Type.Optional(Type.Boolean()),
  /** A header that names the host in the place of `host`. */
  override_auto_sni_header: Type.Optional(Type.String()),
});

/** What a request says of the handshake of its connection. Connections serve only requests that say the same. */
export interface PeerNames {
  readonly key: string;
  /** As many such keys may have pools at one host; absent: 256. */
  readonly most?: number;
  readonly options: Pick<TransportOptions, "serverName" | "subjectAltNames" | "downstream">;
}

/** RFC 6066 §3: an address is no name. What else a client may have sent is no name either. */
const ADDRESS = /^[0-9.]+$|:/;
const NAME = /^[!-~]{1,255}$/;

/** Reads names off the heads of requests, as they go to the upstream: after all rewriting. */
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

  /** Undefined: requests have no say. */
  static of(config: Static<typeof UpstreamHttpOptions> | undefined): PeerNaming | undefined {
    if (config?.auto_sni !== true && config?.auto_san_validation !== true) return undefined;
    return new PeerNaming(config);
  }

  /** Undefined: what the config of the transport says stands. */
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
