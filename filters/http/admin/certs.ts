import { type Answer, json } from "./answer.ts";
import type { CertificateSnapshot, CoreData } from "./core-data.ts";
import type { Query } from "./query.ts";

const DAY_MS = 86_400_000;
const NAMES: Readonly<Record<string, string>> = {
  DNS: "dns",
  URI: "uri",
  IP_ADDRESS: "ip_address",
};

/** `/certs`: what each TLS context has loaded. */
export function certs(_query: Query, core: CoreData): Answer {
  const now = Date.now();
  return json({
    certificates: core.certificates.map(({ trusted, chains }) => ({
      ca_cert: trusted.map((certificate) => shown(certificate, now)),
      cert_chain: chains.map((certificate) => shown(certificate, now)),
    })),
  });
}

function shown(certificate: CertificateSnapshot, now: number): unknown {
  const { path, serial, names, notBefore, notAfter } = certificate;
  const listed = names.flatMap(({ type, value }) => {
    const key = NAMES[type];
    return key === undefined ? [] : [{ [key]: value }];
  });
  return {
    path,
    serial_number: serial,
    subject_alt_names: listed,
    days_until_expiration: String(Math.max(0, Math.floor((notAfter - now) / DAY_MS))),
    valid_from: seconds(notBefore),
    expiration_time: seconds(notAfter),
  };
}

function seconds(ms: number): string {
  return new Date(ms).toISOString().replace(".000Z", "Z");
}
