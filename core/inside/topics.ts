import type { Host } from "./host.ts";

/** Core tells each isolate the values of the runtime: a list of [key, value]. */
export const RUNTIME_TOPIC = "core/runtime";

/** True while an operator wants health checks to fail (admin's /healthcheck/fail): clients are asked to leave. */
export const HEALTH_TOPIC = "core/health_checks_fail";

/** What the TLS contexts of the first worker have loaded. */
export const CERTIFICATES_TOPIC = "core.certificates";

/** Of larger ones that nobody here has asked for the thread keeps the text, which all threads share. */
const KEPT_CHARS = 16 * 1024;

/**
 * Values that isolates tell each other by name; the last one of a topic is kept for those who come later. They travel, and are
 * kept, as JSON: most isolates never look at what may be megabytes.
 */
export class Topics {
  readonly #host: Host;
  readonly #texts = new Map<string, string>();
  readonly #subscribers = new Map<string, Set<(value: unknown) => void>>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** Core carries it to the other isolates; subscribers in this one get a copy of their own at once. */
  publish(topic: string, value: unknown): void {
    const text = JSON.stringify(value ?? null);
    this.#host.tellText("publish", `${topic}\0${text}`);
    this.#texts.set(topic, text);
    this.#deliver(topic, text);
  }

  /** Answers the function that ends the subscription. */
  subscribe(topic: string, onValue: (value: unknown) => void): () => void {
    let set = this.#subscribers.get(topic);
    if (set === undefined) {
      set = new Set();
      this.#subscribers.set(topic, set);
    }
    set.add(onValue);
    const text = this.#texts.get(topic) ?? this.#host.topic(topic);
    if (text !== "") onValue(JSON.parse(text));
    return () => {
      set.delete(onValue);
      if (set.size === 0) this.#subscribers.delete(topic);
    };
  }

  /** `text`: JSON of the value. */
  onPublished(topic: string, text: string): void {
    if (text.length <= KEPT_CHARS || this.#subscribers.has(topic)) this.#texts.set(topic, text);
    else this.#texts.delete(topic);
    this.#deliver(topic, text);
  }

  #deliver(topic: string, text: string): void {
    const subscribers = this.#subscribers.get(topic);
    if (subscribers === undefined) return;
    const value: unknown = JSON.parse(text);
    for (const onValue of [...subscribers]) onValue(value);
  }
}
