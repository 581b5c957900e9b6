import { compileDateFormat, isoTime } from "./date-format.ts";
import type { FormatSource } from "./format.ts";
import { type Make, nonEmpty, plain } from "./format-make.ts";
import type { AlternativeName, Certificate, TlsInfo } from "./transport.ts";

type TlsOf = (source: FormatSource) => TlsInfo | undefined;
type CertificateOf = (source: FormatSource) => Certificate | undefined;

/** `%<side>_TLS_…%`, `%<side>_PEER_…%` and `%<side>_LOCAL_…%` of one connection. */
export function tlsCommands(side: "DOWNSTREAM" | "UPSTREAM", tls: TlsOf): Record<string, Make> {
  const of = (read: (tls: TlsInfo) => string) =>
    plain((source) => {
      const info = tls(source);
      return info === undefined ? undefined : nonEmpty(read(info));
    });
  const chain = (mark: "serial" | "sha256" | "sha1") =>
    of((t) => t.peerChainMarks.map((certificate) => certificate[mark]).join(","));
  const ofChain: Record<string, Make> =
    side === "UPSTREAM"
      ? {}
      : {
          DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256: chain("sha256"),
          DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1: chain("sha1"),
          DOWNSTREAM_PEER_CHAIN_SERIALS: chain("serial"),
        };
  return {
    ...ofChain,
    [`${side}_TLS_VERSION`]: of((t) => t.version),
    [`${side}_TLS_CIPHER`]: of((t) => t.cipher),
    [`${side}_TLS_GROUP`]: of((t) => t.curve),
    [`${side}_TLS_SESSION_ID`]: of((t) => t.sessionId),
    ...certificateCommands(`${side}_PEER`, (source) => tls(source)?.peer),
    ...certificateCommands(`${side}_LOCAL`, (source) => tls(source)?.local),
  };
}

function certificateCommands(prefix: string, certificate: CertificateOf): Record<string, Make> {
  const of = (read: (certificate: Certificate) => string) =>
    plain((source) => {
      const found = certificate(source);
      return found === undefined ? undefined : nonEmpty(read(found));
    });
  const names = (type: AlternativeName["type"]) =>
    of((c) =>
      c.names
        .filter((name) => name.type === type)
        .map((name) => name.value)
        .join(","),
    );
  const commands: Record<string, Make> = {
    [`${prefix}_SUBJECT`]: of((c) => c.subject),
    [`${prefix}_URI_SAN`]: names("URI"),
    [`${prefix}_DNS_SAN`]: names("DNS"),
    [`${prefix}_IP_SAN`]: names("IP_ADDRESS"),
    [`${prefix}_EMAIL_SAN`]: names("EMAIL"),
    [`${prefix}_OTHERNAME_SAN`]: names("OTHER_NAME"),
  };
  if (prefix.endsWith("_LOCAL")) return commands;
  return {
    ...commands,
    [`${prefix}_ISSUER`]: of((c) => c.issuer),
    [`${prefix}_SERIAL`]: of((c) => c.serial),
    [`${prefix}_FINGERPRINT_256`]: of((c) => c.sha256),
    [`${prefix}_FINGERPRINT_1`]: of((c) => c.sha1),
    [`${prefix}_CERT`]: of((c) => encodeURIComponent(c.pem)),
    [`${prefix}_CERT_V_START`]: date(certificate, (c) => c.notBefore),
    [`${prefix}_CERT_V_END`]: date(certificate, (c) => c.notAfter),
  };
}

function date(certificate: CertificateOf, read: (certificate: Certificate) => number): Make {
  return (parameter, length) => {
    if (length !== undefined) throw new TypeError("takes no length");
    const print =
      parameter === undefined || parameter === "" ? isoTime : compileDateFormat(parameter);
    return (source) => {
      const found = certificate(source);
      return found === undefined ? undefined : print(read(found));
    };
  };
}
