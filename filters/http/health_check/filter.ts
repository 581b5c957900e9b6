import {
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  headerName,
  hold,
  type RequestHeaders,
  type ResponseHeaders,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { HealthCheck } from "./health-check.ts";

const CHECKED_CLUSTER = headerName("x-envoy-upstream-healthchecked-cluster");
const IMMEDIATE_FAIL = headerName("x-envoy-immediate-health-check-fail");
const DEGRADED = headerName("x-envoy-degraded");
const MAX_BODY_BYTES = 1_048_576; // of a check, which usually has none

/** Answers the checks among the requests, or marks the upstream's answers to them. */
class HealthCheckFilter implements HttpFilter {
  readonly #shared: HealthCheck;
  readonly #stream: HttpStream;
  #isCheck = false;
  /** A check that is answered here as soon as its body has come. */
  #waits = false;

  constructor(shared: HealthCheck, stream: HttpStream) {
    this.#shared = shared;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders, endStream: boolean) {
    const shared = this.#shared;
    if (!shared.isFor(headers)) return;
    this.#isCheck = true;
    this.#stream.info.healthCheck = true;
    const handled = !shared.passThrough || shared.failed || shared.cache?.get() !== undefined;
    if (!handled) return;
    if (endStream) return shared.answer();
    this.#waits = true;
    return hold({ body: "buffer", max: MAX_BODY_BYTES });
  }

  /** Nobody reads the body of a check that is answered here; all other bodies go on. */
  onRequestBody() {
    return this.#waits ? this.#shared.answer() : undefined;
  }

  onResponseHeaders(headers: ResponseHeaders): void {
    const shared = this.#shared;
    if (this.#isCheck) {
      shared.cache?.set(headers.status, headers.has(DEGRADED));
      headers.set(CHECKED_CLUSTER, shared.clusterName);
    }
    if (shared.failed) headers.set(IMMEDIATE_FAIL, "true");
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.health_check",
  aliases: ["envoy.health_check"],
  types: ["envoy.extensions.filters.http.health_check.v3.HealthCheck"],
  config: Config,
  setup(config: Config, cx) {
    const shared = new HealthCheck(config, cx);
    return (stream) => new HealthCheckFilter(shared, stream);
  },
});
