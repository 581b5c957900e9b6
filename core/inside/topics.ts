import type { Host } from "./host.ts";

/** Core tells each isolate the values of the runtime: a list of [key, value]. */
export const RUNTIME_TOPIC = "core/runtime";

/** True while an operator wants health checks to fail (admin's /healthcheck/fail): clients are asked to leave. */
export const HEALTH_TOPIC = "core/health_checks_fail";

/** Values that isolates tell each other by name; the last one of a topic is kept for those who come later. */
export class Topics {
  readonly #host: Host;
  readonly #values = new Map<string, unknown>();
  readonly #subscribers = new Map<string, Set<(value: unknown) => void>>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** Core carries it to the other isolates; subscribers in this one get a copy of their own at once. */
  publish(topic: string, value: unknown): void {
    this.#host.tell("publish", { topic, value });
    this.onPublished(topic, JSON.parse(JSON.stringify(value ?? null)));
  }

  /** Answers the function that ends the subscription. */
  subscribe(topic: string, onValue: (value: unknown) => void): () => void {
    let set = this.#subscribers.get(topic);
    if (set === undefined) {
      set = new Set();
      this.#subscribers.set(topic, set);
    }
    set.add(onValue);
    if (this.#values.has(topic)) onValue(this.#values.get(topic));
    return () => {
      set.delete(onValue);
      if (set.size === 0) this.#subscribers.delete(topic);
    };
  }

  onPublished(topic: string, value: unknown): void {
    this.#values.set(topic, value);
    for (const onValue of [...(this.#subscribers.get(topic) ?? [])]) onValue(value);
  }
}
