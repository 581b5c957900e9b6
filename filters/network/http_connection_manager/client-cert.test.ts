import { headerName, RequestHeaders, type TlsInfo } from "@tsproxy/sdk";
import { TestConnection } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import { ClientCert, editClientCert } from "./client-cert.ts";
import type { Config } from "./config.ts";

const XFCC = headerName("x-forwarded-client-cert");
const certificate = {
  subject: "CN=client,O=Test",
  sha256: "ab12",
  names: [
    { type: "URI", value: "spiffe://test/client" },
    { type: "DNS", value: "client.test" },
    { type: "DNS", value: "other.test" },
  ],
  pem: "-----BEGIN CERTIFICATE-----\na+/=\n-----END CERTIFICATE-----\n",
};
const tls = {
  peer: certificate,
  peerChain: [certificate.pem],
  local: { ...certificate, names: [{ type: "URI", value: "spiffe://test/server" }] },
} as unknown as TlsInfo;

function edited(mode: string, options: { sent?: string; mutual?: boolean; details?: object } = {}) {
  const connection = new TestConnection();
  if (options.mutual !== false) connection.tls = tls;
  const headers = new RequestHeaders();
  headers.reset();
  if (options.sent !== undefined) headers.append("x-forwarded-client-cert", options.sent);
  const config = {
    forward_client_cert_details: mode,
    set_current_client_cert_details: options.details,
  } as Config;
  editClientCert(headers, new ClientCert(connection), config);
  return headers.get(XFCC);
}

describe("x-forwarded-client-cert", () => {
  const own = "By=spiffe://test/server;Hash=ab12";

  it("is believed from nobody without mutual TLS", () => {
    for (const mode of ["SANITIZE", "FORWARD_ONLY", "APPEND_FORWARD", "SANITIZE_SET"])
      expect(edited(mode, { sent: "Hash=evil", mutual: false }), mode).toBeUndefined();
    expect(edited("ALWAYS_FORWARD_ONLY", { sent: "Hash=x", mutual: false })).toBe("Hash=x");
  });

  it("is removed, passed on, appended to or set anew", () => {
    expect(edited("SANITIZE", { sent: "Hash=x" })).toBeUndefined();
    expect(edited("FORWARD_ONLY", { sent: "Hash=x" })).toBe("Hash=x");
    expect(edited("APPEND_FORWARD", { sent: "Hash=x" })).toBe(`Hash=x,${own}`);
    expect(edited("APPEND_FORWARD")).toBe(own);
    expect(edited("SANITIZE_SET", { sent: "Hash=x" })).toBe(own);
  });

  it("says of the certificate what the config asks for, in Envoy's order", () => {
    const details = { subject: true, cert: true, chain: true, dns: true, uri: true };
    const pem = "-----BEGIN%20CERTIFICATE-----%0Aa%2B%2F%3D%0A-----END%20CERTIFICATE-----%0A";
    expect(edited("SANITIZE_SET", { details })).toBe(
      `${own};Cert="${pem}";Chain="${pem}";Subject="CN=client,O=Test";` +
        "URI=spiffe://test/client;DNS=client.test;DNS=other.test",
    );
  });
});
