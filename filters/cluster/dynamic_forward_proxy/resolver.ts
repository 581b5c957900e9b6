import {
  type Counter,
  type DnsCacheConfig,
  type DnsResolverOptions,
  DnsStats,
  dnsResolverOptions,
  type Gauge,
  type HostSpec,
  isIp,
  type NamedHost,
  type NameOutcome,
  namedHost,
  outcomeTopic,
  type SetupContext,
  type Timer,
  usedTopic,
  wantedTopic,
} from "@tsproxy/sdk";

interface Entry {
  readonly host: NamedHost;
  /** The last address that DNS returned; "": none yet. */
  ip: string;
  /** The first query has ended, with or without an address. */
  answered: boolean;
  lastUsed: number;
  failures: number;
  /** Fires when the next query is due; an unused host is removed then. */
  readonly timer: Timer;
  /** Timeout of the query in progress. */
  readonly deadline: Timer;
  /** Number of the latest query; answers to earlier ones are ignored. */
  question: number;
  /** Why the last query gave no address, in the wording of c-ares. */
  failure: string;
}

interface Answer {
  readonly addresses?: readonly { readonly ip: string; readonly ttl: number }[];
}

/** Longest interval between two queries for a name, whatever its TTL. */
const MAX_WAIT_MS = 86_400_000;
/**
 * A list of hosts costs all threads together some 6 µs a host, most of it JSON: 6 ms for 1000. A client may ask for ever new hosts,
 * so after each list the next one waits for eight times as long, and has what came meanwhile.
 */
const PAUSE_US_PER_HOST = 50;
/** Requests wait for it beside the time that DNS takes. */
const MAX_PAUSE_MS = 250;

/**
 * A DNS cache of the whole process; runs on the control thread. Workers publish the hosts that their requests want. A host stays
 * in the cluster until it has been unused for `host_ttl`. Workers are told the outcome when the first query for its name ends.
 */
export class Resolver {
  readonly #config: DnsCacheConfig;
  readonly #resolver: DnsResolverOptions | undefined;
  readonly #cx: SetupContext;
  readonly #update: (hosts: readonly HostSpec[]) => void;
  readonly #entries = new Map<string, Entry>();
  readonly #stats: Outcomes;
  readonly #dns: DnsStats;
  readonly #count: Gauge;
  /** Runs while no list of hosts may be published. */
  readonly #pause: Timer;
  #isPausing = false;
  /** Hosts have changed since they were published. */
  #isStale = false;
  /** Hosts that workers are told of once these are published. */
  readonly #untold = new Set<Entry>();
  #stopped = false;

  constructor(
    config: DnsCacheConfig,
    cx: SetupContext,
    update: (hosts: readonly HostSpec[]) => void,
  ) {
    this.#config = config;
    this.#resolver = dnsResolverOptions(config);
    this.#cx = cx;
    this.#update = update;
    const stats = cx.stats.scope(`dns_cache.${config.name}.`);
    this.#stats = Object.fromEntries(
      COUNTERS.map((name) => [name, stats.counter(name)]),
    ) as Outcomes;
    this.#dns = new DnsStats(config.dns_lookup_family, cx);
    this.#count = stats.gauge("num_hosts");
    this.#count.set(0);
    this.#pause = cx.timer(() => {
      this.#isPausing = false;
      if (this.#isStale) this.#publishHosts();
    });
    update([]);
    for (const { address, port_value } of config.preresolve_hostnames ?? []) {
      const host = namedHost(address.includes(":") ? `[${address}]` : address, port_value);
      if (host !== undefined) this.#want(host);
    }
    cx.subscribe(wantedTopic(config.name), (value) => {
      if (!this.#stopped) this.#want(value as NamedHost);
    });
    cx.subscribe(usedTopic(config.name), (value) => {
      for (const key of value as readonly string[]) {
        const entry = this.#entries.get(key);
        if (entry !== undefined) entry.lastUsed = cx.now();
      }
    });
  }

  stop(): void {
    this.#stopped = true;
    for (const entry of this.#entries.values()) this.#silence(entry);
    this.#pause.cancel();
    this.#count.set(0);
  }

  #want(host: NamedHost): void {
    const known = this.#entries.get(host.key);
    if (known !== undefined) {
      known.lastUsed = this.#cx.now();
      if (known.answered) this.#tellSoon(known);
      return;
    }
    if (this.#entries.size >= this.#config.max_hosts) {
      this.#stats.host_overflow.inc();
      this.#cx.publish(outcomeTopic(this.#config.name), { key: host.key, outcome: "overflow" });
      return;
    }
    const entry: Entry = {
      host,
      ip: "",
      answered: false,
      lastUsed: this.#cx.now(),
      failures: 0,
      timer: this.#cx.timer(() => this.#onTimer(entry)),
      deadline: this.#cx.timer(() => this.#onFailure(entry, "timeout")),
      question: 0,
      failure: "",
    };
    this.#entries.set(host.key, entry);
    this.#stats.host_added.inc();
    this.#count.set(this.#entries.size);
    this.#ask(entry);
  }

  #onTimer(entry: Entry): void {
    const isIdle = this.#cx.now() - entry.lastUsed >= this.#config.host_ttl;
    if (!isIdle) {
      this.#ask(entry);
      return;
    }
    this.#silence(entry);
    this.#entries.delete(entry.host.key);
    this.#stats.host_removed.inc();
    this.#count.set(this.#entries.size);
    if (entry.ip !== "") this.#onHostsChanged();
  }

  #silence(entry: Entry): void {
    entry.question++;
    entry.timer.cancel();
    entry.deadline.cancel();
  }

  #ask(entry: Entry): void {
    const question = ++entry.question;
    const isOpen = () => entry.question === question && !this.#stopped;
    this.#stats.dns_query_attempt.inc();
    if (!isWellFormed(entry.host.name, this.#config.dns_lookup_family)) {
      this.#onFailure(entry, "malformed");
      return;
    }
    entry.deadline.arm(this.#config.dns_query_timeout);
    this.#dns.onAsked();
    this.#cx
      .operation("dns.resolve", {
        name: entry.host.name,
        family: this.#config.dns_lookup_family,
        ...(this.#resolver !== undefined && { resolver: this.#resolver }),
      })
      .then(
        (answer) => {
          const { addresses = [] } = answer as Answer;
          this.#dns.onAnswered(addresses.map(({ ip }) => ip));
          if (isOpen()) this.#onAnswer(entry, answer as Answer);
        },
        () => {
          this.#dns.onFailed();
          if (isOpen()) this.#onFailure(entry, "failure");
        },
      );
  }

  #onAnswer(entry: Entry, { addresses = [] }: Answer): void {
    entry.deadline.cancel();
    entry.failures = 0;
    this.#stats.dns_query_success.inc();
    entry.failure = "cares_norecords:Domain_name_not_found";
    const [first] = addresses;
    // A host whose name no longer has addresses keeps its last one.
    const moved = first !== undefined && !addresses.some(({ ip }) => ip === entry.ip);
    if (moved) {
      entry.ip = first.ip;
      this.#stats.host_address_changed.inc();
      this.#onHostsChanged();
    }
    const { dns_min_refresh_rate: least, dns_refresh_rate: usual } = this.#config;
    const ttl = Math.min(...addresses.map((address) => address.ttl)) * 1000;
    this.#settle(entry, addresses.length === 0 ? usual : Math.max(least, ttl));
  }

  #onFailure(entry: Entry, what: keyof typeof FAILURE): void {
    entry.question++;
    entry.deadline.cancel();
    entry.failures++;
    entry.failure = FAILURE[what];
    if (what === "timeout") this.#stats.dns_query_timeout.inc();
    this.#stats.dns_query_failure.inc();
    const { dns_failure_refresh_rate: rate, dns_refresh_rate: usual } = this.#config;
    if (rate === undefined) {
      this.#settle(entry, usual);
      return;
    }
    const most = rate.max_interval ?? rate.base_interval * 10;
    const interval = Math.min(rate.base_interval * 2 ** Math.min(entry.failures - 1, 30), most);
    this.#settle(entry, Math.max(1, Math.random() * interval));
  }

  #settle(entry: Entry, nextMs: number): void {
    const first = !entry.answered;
    entry.answered = true;
    if (first) this.#tellSoon(entry);
    entry.timer.arm(Math.min(nextMs, MAX_WAIT_MS));
  }

  /** Tells workers of a name that DNS has answered; of one with an address once its host is published. */
  #tellSoon(entry: Entry): void {
    if (this.#isStale && entry.ip !== "") this.#untold.add(entry);
    else this.#tell(entry);
  }

  #tell(entry: Entry): void {
    const {
      host: { key },
      ip,
    } = entry;
    const outcome: NameOutcome = ip === "" ? { failed: entry.failure } : "known";
    this.#cx.publish(outcomeTopic(this.#config.name), { key, outcome });
  }

  #onHostsChanged(): void {
    this.#isStale = true;
    if (!this.#isPausing) this.#publishHosts();
  }

  #publishHosts(): void {
    const hosts: HostSpec[] = [];
    for (const { host, ip } of this.#entries.values())
      if (ip !== "")
        hosts.push({
          id: host.key,
          ip,
          port: host.port,
          hostname: host.key,
          weight: 1,
          priority: 0,
          healthStatus: "UNKNOWN",
        });
    this.#isStale = false;
    this.#update(hosts);
    for (const entry of this.#untold) this.#tell(entry);
    this.#untold.clear();
    const pauseMs = Math.min(MAX_PAUSE_MS, Math.floor((hosts.length * PAUSE_US_PER_HOST) / 1000));
    if (pauseMs === 0) return;
    this.#isPausing = true;
    this.#pause.arm(pauseMs);
  }
}

/** Whether c-ares, which Envoy asks, would look the name up at all. With V4_ONLY an IPv6 address is no such name. */
function isWellFormed(name: string, family: DnsCacheConfig["dns_lookup_family"]): boolean {
  if (name.includes(":")) return family !== "V4_ONLY" && isIp(name);
  return name === "." || (name.length <= MOST_IN_NAME && NAME.test(name));
}

/** RFC 1035 §2.3.4: labels of 1 to 63 characters; c-ares takes these characters alone. */
const NAME = /^(?:[\w*/-]{1,63}(?:\.|$))+$/;
const MOST_IN_NAME = 253;

/** Reasons of failed queries, in the wording of c-ares, which Envoy reports. */
const FAILURE = {
  failure: "cares_failure:Could_not_contact_DNS_servers",
  timeout: "cares_failure:Timeout_while_contacting_DNS_servers",
  malformed: "cares_failure:Misformatted_domain_name",
} as const;

const COUNTERS = [
  "cache_load",
  "dns_address_filter_out",
  "dns_query_attempt",
  "dns_query_failure",
  "dns_query_success",
  "dns_query_timeout",
  "dns_rq_pending_overflow",
  "host_added",
  "host_address_changed",
  "host_overflow",
  "host_removed",
] as const;

type Outcomes = Readonly<Record<(typeof COUNTERS)[number], Counter>>;
