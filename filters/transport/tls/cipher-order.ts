/** IANA numbers of cipher suites by OpenSSL's names. */
const SUITES: Readonly<Record<string, number>> = {
  TLS_AES_128_GCM_SHA256: 0x1301,
  TLS_AES_256_GCM_SHA384: 0x1302,
  TLS_CHACHA20_POLY1305_SHA256: 0x1303,
  "AES128-SHA": 0x002f,
  "AES256-SHA": 0x0035,
  "AES128-GCM-SHA256": 0x009c,
  "AES256-GCM-SHA384": 0x009d,
  "ECDHE-ECDSA-AES128-SHA": 0xc009,
  "ECDHE-ECDSA-AES256-SHA": 0xc00a,
  "ECDHE-RSA-AES128-SHA": 0xc013,
  "ECDHE-RSA-AES256-SHA": 0xc014,
  "ECDHE-ECDSA-AES128-SHA256": 0xc023,
  "ECDHE-ECDSA-AES256-SHA384": 0xc024,
  "ECDHE-RSA-AES128-SHA256": 0xc027,
  "ECDHE-RSA-AES256-SHA384": 0xc028,
  "ECDHE-ECDSA-AES128-GCM-SHA256": 0xc02b,
  "ECDHE-ECDSA-AES256-GCM-SHA384": 0xc02c,
  "ECDHE-RSA-AES128-GCM-SHA256": 0xc02f,
  "ECDHE-RSA-AES256-GCM-SHA384": 0xc030,
  "ECDHE-RSA-CHACHA20-POLY1305": 0xcca8,
  "ECDHE-ECDSA-CHACHA20-POLY1305": 0xcca9,
};

/**
 * A server's order of preference among cipher suites, with BoringSSL's groups of equal preference, `[A|B]`, which OpenSSL lacks:
 * within a group the client's order decides.
 */
export class CipherOrder {
  /** All suites in the server's order, as OpenSSL's list: separated by colons, without brackets. */
  readonly list: string;
  readonly #groups: readonly (readonly string[])[];

  /** `entries`: as in `cipher_suites`; an entry may itself hold several, separated by colons. */
  constructor(entries: readonly string[]) {
    this.#groups = entries
      .flatMap((entry) => entry.split(":"))
      .map((part) => part.replace(/^\[|\]$/g, "").split("|"))
      .map((group) => group.filter((name) => name !== ""));
    this.list = this.#groups.flat().join(":");
  }

  /**
   * The list for a client, with each group in the client's order. `offered`: IANA numbers of the client's suites. Only groups of
   * the handshake's TLS version are sorted, so that clients that differ in suites of other versions get the same list.
   */
  listFor(offered: readonly number[], version: "TLSv1.3" | "older"): string {
    const place = (name: string): number => {
      const at = offered.indexOf(SUITES[name] ?? -1);
      return at < 0 ? offered.length : at;
    };
    return this.#groups
      .flatMap((group) =>
        group.length > 1 && group[0]!.startsWith("TLS_") === (version === "TLSv1.3")
          ? [...group].sort((a, b) => place(a) - place(b))
          : group,
      )
      .join(":");
  }

  /** IANA numbers of the suites that need a certificate with an ECDSA key. */
  ecdsaSuites(): ReadonlySet<number> {
    const names = this.#groups.flat().filter((name) => name.startsWith("ECDHE-ECDSA-"));
    return new Set(names.flatMap((name) => SUITES[name] ?? []));
  }
}
