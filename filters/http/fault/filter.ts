// Hot path: a request that no fault is meant for passes onRequestHeaders only, or nothing at all (test/bench/cpu.ts idle).
import {
  type Chunk,
  defineHttpFilter,
  done,
  type HttpFilter,
  type HttpStream,
  held,
  type RequestHeaders,
  reply,
  type SetupContext,
  type SharedHolds,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { Settings } from "./settings.ts";
import { FaultStats } from "./stats.ts";
import { Throttle } from "./throttle.ts";

const NAME = "envoy.filters.http.fault";

/** What all streams of one use share. */
class Faults {
  readonly settings: Settings;
  readonly stats: FaultStats;
  /** Faults under way, over all workers. */
  readonly active: SharedHolds;
  readonly now: () => number;
  /** The namespace of `filter_metadata`: the filter's name in the config. */
  readonly name: string;

  constructor(config: Config, cx: SetupContext, active: SharedHolds) {
    this.settings = new Settings(config, cx);
    this.stats = new FaultStats(cx);
    this.active = active;
    this.now = () => cx.now();
    this.name = cx.configName ?? NAME;
  }
}

/** Stands for the filter while no stream can meet a fault. */
const NOTHING: HttpFilter = {};

/** Delays, then aborts, or slows the response down; each with its own probability. */
class FaultFilter implements HttpFilter {
  readonly #faults: Faults;
  readonly #stream: HttpStream;
  #settings: Settings;
  #client = "";
  #isActive = false;
  #throttle: Throttle | undefined = undefined;

  constructor(faults: Faults, stream: HttpStream) {
    this.#faults = faults;
    this.#settings = faults.settings;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const stream = this.#stream;
    const settings = (stream.routeConfig as Settings | undefined) ?? this.#faults.settings;
    if (settings.isEmpty || !settings.matches(headers, stream)) return done;
    this.#settings = settings;
    this.#client = settings.clusterOf(headers);
    this.#limitRate(headers);
    const ms = settings.delayMs(headers, this.#client);
    if (ms === 0 || !this.#begin()) return this.#abort(headers);
    const { stats } = this.#faults;
    stats.delays.inc();
    if (this.#hasClusterStats) stats.of(this.#client)?.delays.inc();
    stream.info.flags.push("DI");
    this.#tell();
    return stream.sleep(ms).then(() => this.#afterDelay(headers));
  }

  /** As in Envoy, a delay that is over counts no more as a fault, unless answers are slowed down too. */
  #afterDelay(headers: RequestHeaders) {
    const answer = this.#abort(headers);
    if (answer !== undefined || this.#settings.config.response_rate_limit) return answer;
    this.#release();
    return done;
  }

  #limitRate(headers: RequestHeaders): void {
    const kbps = this.#settings.rateKbps(headers);
    if (kbps === 0 || !this.#begin()) return;
    this.#faults.stats.rateLimits.inc();
    this.#throttle = new Throttle(kbps);
  }

  #abort(headers: RequestHeaders) {
    const abort = this.#settings.abort(headers, this.#client);
    if (abort === undefined || !this.#begin()) return this.#isActive ? undefined : done;
    const { stats } = this.#faults;
    stats.aborts.inc();
    if (this.#hasClusterStats) stats.of(this.#client)?.aborts.inc();
    this.#tell();
    const { status, grpcStatus } = abort;
    return reply(status, {
      body: "fault filter abort",
      flags: ["FI"],
      details: "fault_filter_abort",
      ...(grpcStatus !== undefined && { grpcStatus }),
    });
  }

  get #hasClusterStats(): boolean {
    return this.#client !== "" && !this.#settings.config.disable_downstream_cluster_stats;
  }

  /** A stream counts as one active fault, however many it meets. False: too many streams do already. */
  #begin(): boolean {
    if (this.#isActive) return true;
    const { active, stats } = this.#faults;
    if (!active.acquire(this.#settings.maxActive)) {
      stats.overflow.inc();
      return false;
    }
    this.#isActive = true;
    stats.active.inc();
    return true;
  }

  #release(): void {
    if (!this.#isActive) return;
    this.#isActive = false;
    this.#faults.active.release();
    this.#faults.stats.active.dec();
  }

  /** Logs and filters find delays and aborts in the metadata; a slow answer leaves nothing there, as in Envoy. */
  #tell(): void {
    const metadata = this.#settings.config.filter_metadata;
    this.#stream.metadata.set(this.#faults.name, { ...metadata });
  }

  onResponseBody(chunk: Chunk) {
    const ms = this.#throttle?.waitMs(chunk.length, this.#faults.now()) ?? 0;
    if (ms > 0) return this.#stream.sleep(ms);
  }

  onEnd() {
    this.#release();
  }
}

export default defineHttpFilter({
  name: NAME,
  aliases: ["envoy.fault"],
  types: ["envoy.extensions.filters.http.fault.v3.HTTPFault"],
  config: Config,
  routeConfig: Config,
  shared: { active: held() },
  setupRoute: (config, cx) => new Settings(config, cx),
  setup(config, cx) {
    const faults = new Faults(config, cx, cx.shared.active);
    const { settings } = faults;
    return (stream) =>
      stream.isOverridden === false && settings.isIdle ? NOTHING : new FaultFilter(faults, stream);
  },
});
