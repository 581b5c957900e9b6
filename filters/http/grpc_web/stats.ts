import type { Counter, SetupContext, Stats, StreamInfo } from "@tsproxy/sdk";

/** Clients choose paths, and stats are never removed: beyond these limits, methods are not counted. */
const MAX_METHODS = 2048;
const MAX_NAME = 256;

/** `cluster.<name>.grpc-web.<service>.<method>.` `<grpc-status>`, `success`, `failure`, `total`; each from its first count on. */
export class GrpcWebStats {
  readonly #cx: SetupContext;
  readonly #methods = new Map<string, Map<string, Counter>>();

  constructor(cx: SetupContext) {
    this.#cx = cx;
  }

  /** `path`: of the request, with its query. Whatever is no `/service/method` is not counted. */
  count({ cluster, clusterName }: StreamInfo, path: string, grpcStatus: string): void {
    const [, service, method] = /^\/([^/?]+)\/([^/?]+)(?:\?|$)/.exec(path) ?? [];
    if (service === undefined || method === undefined || cluster === undefined) return;
    if (service.length + method.length > MAX_NAME) return;
    const counters = this.#of(`${clusterName} ${service}.${method}`);
    if (counters === undefined) return;
    const stats = this.#cx.stats.scope(`cluster.${cluster.observabilityName ?? clusterName}.`);
    const prefix = `grpc-web.${service}.${method}.`;
    for (const name of [grpcStatus, grpcStatus === "0" ? "success" : "failure", "total"])
      this.#counter(stats, counters, prefix, name).inc();
  }

  #of(key: string): Map<string, Counter> | undefined {
    let counters = this.#methods.get(key);
    if (counters === undefined) {
      if (this.#methods.size >= MAX_METHODS) return undefined;
      counters = new Map();
      this.#methods.set(key, counters);
    }
    return counters;
  }

  #counter(stats: Stats, counters: Map<string, Counter>, prefix: string, name: string): Counter {
    let counter = counters.get(name);
    if (counter === undefined) {
      counter = stats.counter(prefix + name);
      counters.set(name, counter);
    }
    return counter;
  }
}
