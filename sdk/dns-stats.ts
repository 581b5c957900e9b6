import type { SetupContext } from "./extension.ts";
import type { Counter, Gauge } from "./stats.ts";

type Family = "AUTO" | "V4_ONLY" | "V6_ONLY" | "V4_PREFERRED" | "ALL";

/** The families that Envoy's resolver asks for, in this order; but for ALL it stops at the first that has addresses. */
const ASKED: Readonly<Record<Family, readonly (4 | 6)[]>> = {
  V4_ONLY: [4],
  V6_ONLY: [6],
  AUTO: [6, 4],
  V4_PREFERRED: [4, 6],
  ALL: [4, 6],
};

/** `dns.cares.*`: the stats of Envoy's resolver. `timeouts` and `reinits` stay at 0, as nothing here tells a timeout from a failure. */
export class DnsStats {
  readonly #families: readonly (4 | 6)[];
  readonly #isAll: boolean;
  readonly #total: Counter;
  readonly #notFound: Counter;
  readonly #failed: Counter;
  readonly #pending: Gauge;

  constructor(family: Family, cx: SetupContext) {
    this.#families = ASKED[family];
    this.#isAll = family === "ALL";
    const stats = cx.stats.scope("dns.cares.");
    this.#total = stats.counter("resolve_total");
    this.#notFound = stats.counter("not_found");
    this.#failed = stats.counter("get_addr_failure");
    this.#pending = stats.gauge("pending_resolutions");
    for (const name of ["timeouts", "reinits"]) stats.counter(name);
  }

  onAsked(): void {
    this.#pending.inc();
  }

  onAnswered(ips: readonly string[]): void {
    this.#pending.dec();
    for (const family of this.#families) {
      this.#total.inc();
      const isFound = ips.some((ip) => ip.includes(":") === (family === 6));
      if (!isFound) this.#notFound.inc();
      else if (!this.#isAll) return;
    }
  }

  /**
   * The name is an address. As in Envoy, an IPv4 address is found whatever the family, an IPv6 one not where IPv4 is asked for, and with
   * ALL both families are one question.
   */
  onLiteral(ip: string): void {
    this.#pending.dec();
    for (const family of this.#families) {
      this.#total.inc();
      if (this.#isAll || family === 6 || !ip.includes(":")) return;
      this.#failed.inc();
    }
  }

  onFailed(): void {
    this.#pending.dec();
    this.#total.add(this.#families.length);
    this.#failed.add(this.#families.length);
  }
}
