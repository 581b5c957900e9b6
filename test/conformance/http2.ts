import { freePort } from "../../core/command/free-port.ts";
import { Authority } from "../integration/certificates.ts";
import { bootstrap, cluster, http, type Json, listener, route } from "../integration/config.ts";
import { Proxy } from "../integration/proxy.ts";
import { type Outcome, runCommand, suite } from "./outside.ts";

/** Where the script of gRPC starts its servers: it takes no other ports. */
const PORTS = { interop: 19_082, connect: 19_083 } as const;
const TYPE = "type.googleapis.com/envoy.extensions.";
const trailers = { http_protocol_options: { enable_trailers: true } };
const http2 = { http2_protocol_options: {} };

/** The suites of HTTP/2, gRPC and TLS: each is told the ports that it asks for. */
export const HTTP2_SUITES = {
  h2spec: { file: "conformance/h2spec.sh", ports: { PROXY_H2C: "h2c", PROXY_H2: "tls" } },
  "h2spec-auto": { file: "conformance/h2spec.sh", ports: { PROXY_H2C: "auto" } },
  grpc: {
    file: "conformance/grpc.sh",
    ports: { PROXY_H2C: "h2c", PROXY_H1: "web", PROXY_H1_PLAIN: "plain" },
  },
  tls: { file: "conformance/tls.sh", ports: { PROXY_H2: "tls" } },
} as const;

export async function http2Suite(name: keyof typeof HTTP2_SUITES): Promise<Outcome> {
  const { file, ports } = HTTP2_SUITES[name];
  const found = suite(file);
  if (found === undefined) return "skipped";
  const authority = new Authority("suites");
  const { certificate, key } = authority.issue("site", "localhost", "DNS:localhost");
  const origin = await freePort();
  const proxy = await Proxy.start({ config: config({ certificate, key, origin }) });
  try {
    const env = Object.entries(ports).map(([variable, port]) => [
      variable,
      `127.0.0.1:${proxy.port(port)}`,
    ]);
    return await runCommand("bash", [found], { ...Object.fromEntries(env), ORIGIN: `${origin}` });
  } finally {
    await proxy.stop();
    authority.dispose();
  }
}

interface Served {
  readonly certificate: string;
  readonly key: string;
  /** The port that the suite's own HTTP/1.1 server listens at. */
  readonly origin: number;
}

function config({ certificate, key, origin }: Served): Json {
  const manager = (codec: string, more: readonly Json[], filters: readonly Json[] = []): Json =>
    http([...more, to("/", "origin")], { codec_type: codec, ...trailers }, filters);
  const web: Json = {
    name: "grpc_web",
    typed_config: { "@type": `${TYPE}filters.http.grpc_web.v3.GrpcWeb` },
  };
  const calls = [to("/grpc.testing.", "interop"), to("/connectrpc.conformance.", "connect")];
  const tls: Json = {
    name: "tls",
    typed_config: {
      "@type": `${TYPE}transport_sockets.tls.v3.DownstreamTlsContext`,
      common_tls_context: {
        alpn_protocols: ["h2", "http/1.1"],
        tls_certificates: [
          { certificate_chain: { filename: certificate }, private_key: { filename: key } },
        ],
      },
    },
  };
  const secure = manager("AUTO", calls);
  return bootstrap(
    [
      listener("h2c", manager("HTTP2", calls)),
      listener("auto", manager("AUTO", calls)),
      listener("web", manager("HTTP1", calls, [web])),
      listener("plain", manager("HTTP1", [to("/connectrpc.conformance.", "connect-http1")])),
      {
        ...listener("tls", secure),
        filter_chains: [{ filters: [secure], transport_socket: tls }],
      },
    ],
    [
      cluster("origin", [origin]),
      cluster("interop", [PORTS.interop], http2),
      cluster("connect", [PORTS.connect], http2),
      cluster("connect-http1", [PORTS.connect], trailers),
    ],
  );
}

/** Calls have deadlines of their own, which client and server keep: a third clock would only race with theirs. */
function to(prefix: string, name: string): Json {
  return route(prefix, name, { timeout: "0s" });
}
