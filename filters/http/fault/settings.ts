import {
  ConfigError,
  compileHeaderMatch,
  type Fraction,
  fractionOf,
  type HeadMatch,
  type HttpStream,
  headerName,
  isFinalStatus,
  type RequestHeaders,
  type Runtime,
  type SetupContext,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

const NODE = headerName("x-envoy-downstream-service-node");
const CLUSTER = headerName("x-envoy-downstream-service-cluster");
const NEVER: Fraction = { numerator: 0, denominator: 100 };

/** What a header asks for instead of the config, and the header that may lower its share. */
const ASKED = {
  delay: headerName("x-envoy-fault-delay-request"),
  delayShare: headerName("x-envoy-fault-delay-request-percentage"),
  abort: headerName("x-envoy-fault-abort-request"),
  abortGrpc: headerName("x-envoy-fault-abort-grpc-request"),
  abortShare: headerName("x-envoy-fault-abort-request-percentage"),
  rate: headerName("x-envoy-fault-throughput-response"),
  rateShare: headerName("x-envoy-fault-throughput-response-percentage"),
} as const;

interface Abort {
  readonly status: number;
  readonly grpcStatus: number | undefined;
}

/** One HTTPFault, compiled: the filter's own or a route's. Probabilities are read from the runtime each time. */
export class Settings {
  readonly config: Config;
  /** It has no fault at all. */
  readonly isEmpty: boolean;
  readonly #runtime: Runtime;
  readonly #headers: readonly HeadMatch[];
  readonly #nodes: ReadonlySet<string>;
  /** The runtime's version for which `#isIdle` holds. */
  #version = 0;
  #isIdle = false;

  constructor(config: Config, cx: SetupContext) {
    this.config = config;
    this.#runtime = cx.runtime;
    const { delay, abort, response_rate_limit: limit } = config;
    this.isEmpty = delay === undefined && abort === undefined && limit === undefined;
    exactlyOne(delay, ["fixed_delay", "header_delay"], "delay");
    exactlyOne(abort, ["http_status", "grpc_status", "header_abort"], "abort");
    exactlyOne(limit, ["fixed_limit", "header_limit"], "response_rate_limit");
    if (delay?.fixed_delay === 0)
      throw new ConfigError("delay.fixed_delay", "must be longer than 0s");
    this.#headers = config.headers.map((h, k) => compileHeaderMatch(h, `headers[${k}]`, cx));
    this.#nodes = new Set(config.downstream_nodes);
  }

  /** As the runtime is now, no request whatever can meet a fault. */
  get isIdle(): boolean {
    if (this.#version !== this.#runtime.version) {
      this.#version = this.#runtime.version;
      this.#isIdle = this.isEmpty || this.#findIdle();
    }
    return this.#isIdle;
  }

  /** Headers can lower a share, never raise it. Runtime keys can name any client, so one key below `fault.http.` is enough. */
  #findIdle(): boolean {
    const { delay, abort, response_rate_limit: limit } = this.config;
    const own = [
      this.config.delay_percent_runtime,
      this.config.abort_percent_runtime,
      this.config.response_rate_limit_percent_runtime,
    ];
    return (
      [delay, abort, limit].every((part) => (part?.percentage?.numerator ?? 0) === 0) &&
      own.every((key) => key === "" || this.#runtime.get(key) === undefined) &&
      !this.#runtime.hasUnder("fault.http.")
    );
  }

  /** Whether the request is one of those that faults are meant for. */
  matches(headers: RequestHeaders, stream: HttpStream): boolean {
    const { upstream_cluster: cluster } = this.config;
    if (cluster !== "") {
      const action = stream.route?.action;
      if (action?.type !== "route" || action.cluster !== cluster) return false;
    }
    if (this.#nodes.size > 0 && !this.#nodes.has(headers.get(NODE) ?? "")) return false;
    for (let k = 0; k < this.#headers.length; k++) {
      if (!this.#headers[k]!.matches(headers)) return false;
    }
    return true;
  }

  /** The cluster that the client says it belongs to, whose runtime keys win; "" if it says none. */
  clusterOf(headers: RequestHeaders): string {
    return headers.get(CLUSTER) ?? "";
  }

  get maxActive(): number {
    const key = this.config.max_active_faults_runtime || "fault.http.max_active_faults";
    return this.#runtime.integer(key, this.config.max_active_faults ?? Number.POSITIVE_INFINITY);
  }

  /** Milliseconds to wait; 0: none. */
  delayMs(headers: RequestHeaders, client: string): number {
    const { delay, delay_percent_runtime, delay_duration_runtime } = this.config;
    if (delay === undefined) return 0;
    const byHeader = delay.header_delay !== undefined;
    const share = this.#share(delay.percentage, byHeader, headers, ASKED.delayShare);
    const key = delay_percent_runtime || "fault.http.delay.fixed_delay_percent";
    if (!this.#chosen(share, key, client, "delay.fixed_delay_percent")) return 0;
    const ms = byHeader ? whole(headers.get(ASKED.delay)) : delay.fixed_delay;
    if (ms === undefined) return 0;
    const own = delay_duration_runtime || "fault.http.delay.fixed_duration_ms";
    // The one key of a client that does not take the place of the other, in Envoy too.
    const forAll = this.#runtime.integer(own, ms);
    return this.#integer(own, client, "delay.fixed_duration_ms", forAll);
  }

  abort(headers: RequestHeaders, client: string): Abort | undefined {
    const { abort, abort_percent_runtime } = this.config;
    if (abort === undefined) return undefined;
    const byHeader = abort.header_abort !== undefined;
    const share = this.#share(abort.percentage, byHeader, headers, ASKED.abortShare);
    const key = abort_percent_runtime || "fault.http.abort.abort_percent";
    if (!this.#chosen(share, key, client, "abort.abort_percent")) return undefined;
    const asked = byHeader ? whole(headers.get(ASKED.abort)) : abort.http_status;
    if (asked !== undefined && asked >= 200 && asked < 600) {
      const own = this.config.abort_http_status_runtime || "fault.http.abort.http_status";
      const status = this.#integer(own, client, "abort.http_status", asked);
      // No check has seen a value of the runtime; a response has three digits, and 1xx cannot be its last.
      return { status: isFinalStatus(status) ? status : asked, grpcStatus: undefined };
    }
    const grpcStatus = byHeader ? whole(headers.get(ASKED.abortGrpc)) : abort.grpc_status;
    if (grpcStatus === undefined) return undefined;
    const own = this.config.abort_grpc_status_runtime || "fault.http.abort.grpc_status";
    return {
      status: 200,
      grpcStatus: this.#integer(own, client, "abort.grpc_status", grpcStatus),
    };
  }

  /** KiB a second; 0: no limit. */
  rateKbps(headers: RequestHeaders): number {
    const limit = this.config.response_rate_limit;
    if (limit === undefined) return 0;
    const byHeader = limit.header_limit !== undefined;
    const kbps = byHeader ? whole(headers.get(ASKED.rate)) : limit.fixed_limit?.limit_kbps;
    if (kbps === undefined || kbps === 0) return 0;
    const share = this.#share(limit.percentage, byHeader, headers, ASKED.rateShare);
    const key =
      this.config.response_rate_limit_percent_runtime || "fault.http.rate_limit.response_percent";
    return this.#chosen(share, key, "", "") ? kbps : 0;
  }

  /** Headers may lower the share of the config, never raise it. */
  #share(
    percentage: NonNullable<Config["delay"]>["percentage"],
    byHeader: boolean,
    headers: RequestHeaders,
    name: (typeof ASKED)[keyof typeof ASKED],
  ): Fraction {
    const share = percentage === undefined ? NEVER : fractionOf(percentage);
    const asked = byHeader ? whole(headers.get(name)) : undefined;
    if (asked === undefined) return share;
    return { numerator: Math.min(asked, share.numerator), denominator: share.denominator };
  }

  #chosen(share: Fraction, key: string, client: string, clientKey: string): boolean {
    const asked = keyOf(key, client, clientKey);
    const { numerator, denominator } = this.#runtime.fraction(asked, share);
    return numerator > 0 && Math.random() * denominator < numerator;
  }

  #integer(key: string, client: string, clientKey: string, fallback: number): number {
    return this.#runtime.integer(keyOf(key, client, clientKey), fallback);
  }
}

/** A client that names its cluster has a key of its own, which takes the place of that for all. */
function keyOf(forAll: string, client: string, clientKey: string): string {
  return client === "" ? forAll : `fault.http.${client}.${clientKey}`;
}

function exactlyOne<T extends object>(
  part: T | undefined,
  fields: readonly (keyof T & string)[],
  path: string,
): void {
  if (part === undefined) return;
  if (fields.filter((field) => part[field] !== undefined).length !== 1)
    throw new ConfigError(
      path,
      `give one of ${fields.join(", ").replace(/, ([^,]*)$/, " and $1")}`,
    );
}

/** A whole number as Envoy reads headers; undefined: it is none. */
function whole(text: string | undefined): number | undefined {
  return text !== undefined && /^\s*\+?[0-9]{1,15}\s*$/.test(text) ? Number(text) : undefined;
}
