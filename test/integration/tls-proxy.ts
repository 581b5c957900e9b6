import https from "node:https";
import tls from "node:tls";
import { Authority, type Pair } from "./certificates.ts";
import { direct, http, type Json } from "./config.ts";
import { Proxy, type ProxyOptions } from "./proxy.ts";

export const ours = new Authority("ours");

export const strangers = new Authority("strangers");

export const a = ours.issue("a", "a.test", "DNS:a.test,DNS:*.a.test");

export const aRsa = ours.issue("a-rsa", "a.test", "DNS:a.test", { rsa: true });

export const b = ours.issue("b", "b.test", "DNS:b.test");

export const client = ours.issue("client", "client", "URI:spiffe://test/client,DNS:client.test");

export const stranger = strangers.issue("stranger", "stranger", "URI:spiffe://test/client");

/** What a test has to end. */
export const ends: (() => unknown)[] = [];

export async function start(options: ProxyOptions): Promise<Proxy> {
  const proxy = await Proxy.start(options);
  ends.push(() => proxy.stop());
  return proxy;
}

export const TYPE = "type.googleapis.com/envoy.extensions.";

export const source = (filename: string): Json => ({ filename });

export const certificate = ({ certificate: chain, key }: Pair): Json => ({
  certificate_chain: source(chain),
  private_key: source(key),
});

export function downstreamTls(pairs: readonly Pair[], common: Json = {}, more: Json = {}): Json {
  return {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`,
      common_tls_context: { tls_certificates: pairs.map(certificate), ...common },
      ...more,
    },
  };
}

export function upstreamTls(common: Json, more: Json = {}): Json {
  return {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.UpstreamTlsContext`,
      common_tls_context: common,
      ...more,
    },
  };
}

export const secure = (filter: Json, transport_socket: Json, more: Json = {}): Json => ({
  filters: [filter],
  transport_socket,
  ...more,
});

export const hello = http([direct("/", "hello\n")]);

export interface Seen {
  readonly name: string;
  readonly version: string | null;
  readonly alpn: string | false | null;
  readonly keyType: string | undefined;
  readonly resumed: boolean;
}

/** The first certificate that a server shows, and what else was agreed on. */
export function handshake(port: number, options: tls.ConnectionOptions = {}): Promise<Seen> {
  return new Promise((resolve, reject) => {
    let seen: Seen;
    const socket = tls.connect({ port, host: "127.0.0.1", ca: ours.root.pem, ...options }, () => {
      seen = {
        name: String(socket.getPeerCertificate().subject?.CN),
        version: socket.getProtocol(),
        alpn: socket.alpnProtocol,
        keyType: socket.getPeerX509Certificate()?.publicKey.asymmetricKeyType,
        resumed: socket.isSessionReused(),
      };
      socket.end().resume();
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(seen));
  });
}

/** A session that a client may resume. */
export function sessionAt(port: number, maxVersion?: tls.SecureVersion): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({
      port,
      host: "127.0.0.1",
      ca: ours.root.pem,
      servername: "a.test",
      ...(maxVersion !== undefined && { maxVersion }),
    });
    socket.on("error", reject).once("session", (session: Buffer) => {
      resolve(session);
      socket.destroy();
    });
  });
}

export function ask(port: number, options: https.RequestOptions = {}): Promise<string> {
  return new Promise((resolve, reject) => {
    const all = { port, host: "127.0.0.1", ca: ours.root.pem, servername: "a.test", agent: false };
    const request = https.get({ ...all, ...options }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (piece: string) => (text += piece));
      response.on("end", () => resolve(`${response.statusCode} ${text}`));
    });
    request.on("error", reject);
  });
}

/** Called after each test. */
export async function endTest(): Promise<void> {
  for (const end of ends.splice(0).reverse()) await end();
}

/** Called after all tests. */
export function disposeAuthorities(): void {
  ours.dispose();
  strangers.dispose();
}
