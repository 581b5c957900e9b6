import {
  type DownstreamConnection,
  headerName,
  type RequestHeaders,
  type TlsInfo,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

const CLIENT_CERT = headerName("x-forwarded-client-cert");

/** What the requests of one connection say of the client's certificate (x-forwarded-client-cert). */
export class ClientCert {
  readonly #connection: DownstreamConnection;
  #value: string | undefined = undefined;

  constructor(connection: DownstreamConnection) {
    this.#connection = connection;
  }

  get presented(): boolean {
    return this.#connection.tls?.peer !== undefined;
  }

  /** One element of x-forwarded-client-cert; "": no TLS. Made for the first request that needs it, after the handshake. */
  value(config: Config): string {
    const tls = this.#connection.tls;
    this.#value ??= tls === undefined ? "" : elementOf(tls, config);
    return this.#value;
  }
}

/**
 * Removes, keeps or extends x-forwarded-client-cert, by `forward_client_cert_details`. Without a client certificate it is
 * removed, except for ALWAYS_FORWARD_ONLY.
 */
export function editClientCert(headers: RequestHeaders, client: ClientCert, config: Config): void {
  const mode = config.forward_client_cert_details;
  if (mode === "ALWAYS_FORWARD_ONLY") return;
  if (mode === "SANITIZE" || !client.presented) {
    headers.remove(CLIENT_CERT);
    return;
  }
  if (mode === "FORWARD_ONLY") return;
  const value = client.value(config);
  const before = mode === "APPEND_FORWARD" ? headers.getAll(CLIENT_CERT).join(",") : "";
  headers.set(CLIENT_CERT, before === "" ? value : `${before},${value}`);
}

function elementOf(tls: TlsInfo, config: Config): string {
  const { peer, local, peerChain } = tls;
  const details = config.set_current_client_cert_details ?? {};
  const pairs: string[] = [];
  for (const { type, value } of local?.names ?? []) if (type === "URI") pairs.push(`By=${value}`);
  pairs.push(`Hash=${peer?.sha256 ?? ""}`);
  if (details.cert === true) pairs.push(`Cert="${encodePem(peer?.pem ?? "")}"`);
  if (details.chain === true) pairs.push(`Chain="${peerChain.map(encodePem).join("")}"`);
  if (details.subject === true) pairs.push(`Subject="${peer?.subject ?? ""}"`);
  const names = (wanted: string) =>
    (peer?.names ?? []).filter(({ type }) => type === wanted).map(({ value }) => value);
  if (details.uri === true) {
    const uris = names("URI");
    for (const uri of uris.length === 0 ? [""] : uris) pairs.push(`URI=${uri}`);
  }
  if (details.dns === true) for (const name of names("DNS")) pairs.push(`DNS=${name}`);
  return pairs.join(";").replace(/[\r\n\0]/g, "");
}

const ENCODED: Readonly<Record<string, string>> = {
  "\n": "%0A",
  " ": "%20",
  "+": "%2B",
  "/": "%2F",
  "=": "%3D",
};

function encodePem(pem: string): string {
  return pem.replace(/[\n +/=]/g, (c) => ENCODED[c]!);
}
