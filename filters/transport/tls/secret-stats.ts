import type { Counter, SetupContext } from "@tsproxy/sdk";

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
    if (secrets.size > 0) this.#updates.inc();
    this.#note("update_success", secrets, changed);
  }

  /** What a changed file says was not taken. */
  onRefused(secrets: SecretFiles, changed: string): void {
    this.#note("update_rejected", secrets, changed);
  }

  #note(outcome: "update_success" | "update_rejected", secrets: SecretFiles, changed?: string) {
    for (const [file, names] of secrets) {
      if (changed !== undefined && changed !== file) continue;
      for (const name of names) {
        const scope = this.#cx.stats.scope(`sds.${name}.`);
        for (const idle of ["init_fetch_timeout", "key_rotation_failed", "update_failure"])
          scope.counter(idle);
        for (const other of ["update_success", "update_rejected"]) scope.counter(other);
        scope.counter("update_attempt").inc();
        scope.counter(outcome).inc();
        if (outcome === "update_success") scope.gauge("update_time").set(Date.now());
      }
    }
  }
}
