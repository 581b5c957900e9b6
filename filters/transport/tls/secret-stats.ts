import type { Counter, SetupContext } from "@tsproxy/sdk";

const OUTCOMES = ["update_success", "update_rejected", "update_failure"] as const;

/** Names of secrets by the file that they are in. */
export type SecretFiles = ReadonlyMap<string, ReadonlySet<string>>;

/**
 * Stats of the secrets that a listener or cluster takes from files, under Envoy's names: `sds.<secret>.*`, and
 * `server_ssl_socket_factory.*` or `client_ssl_socket_factory.*` below its own.
 */
export class SecretStats {
  readonly #cx: SetupContext;
  readonly #updates: Counter;

  constructor(cx: SetupContext, side: "server" | "client") {
    this.#cx = cx;
    const scope = cx.stats.scope(`${cx.statPrefix ?? ""}${side}_ssl_socket_factory.`);
    this.#updates = scope.counter("ssl_context_update_by_sds");
    // Stay 0: a listener or cluster does not begin without its secrets.
    scope.counter("downstream_context_secrets_not_ready");
    scope.counter("upstream_context_secrets_not_ready");
  }

  /** The secrets have been read. `changed`: the file that was the reason; undefined: at the start. */
  onTaken(secrets: SecretFiles, changed?: string): void {
    const taken = this.#note("update_success", secrets, changed);
    // As in Envoy each secret is taken on its own, and so is a file that one of them names.
    if (secrets.size > 0) this.#updates.add(Math.max(1, taken));
  }

  /** What a changed file says was not taken. `unreadable`: it is no list of secrets. */
  onRefused(secrets: SecretFiles, changed: string, unreadable: boolean): void {
    this.#note(unreadable ? "update_failure" : "update_rejected", secrets, changed);
  }

  /** Returns how many secrets it was. */
  #note(outcome: (typeof OUTCOMES)[number], secrets: SecretFiles, changed?: string): number {
    let count = 0;
    for (const [file, names] of secrets) {
      if (changed !== undefined && changed !== file) continue;
      count += names.size;
      for (const name of names) {
        const scope = this.#cx.stats.scope(`sds.${name}.`);
        for (const idle of ["init_fetch_timeout", "key_rotation_failed"]) scope.counter(idle);
        for (const each of OUTCOMES) scope.counter(each);
        scope.histogram("update_duration", "ms");
        scope.counter("update_attempt").inc();
        scope.counter(outcome).inc();
        if (outcome === "update_success") scope.gauge("update_time").set(Date.now());
      }
    }
    return count;
  }
}
