import type { Host } from "./host.ts";

/** Published by core: all runtime values, as a list of [key, value]. */
export const RUNTIME_TOPIC = "core/runtime";

/** Published by core once the first config has said who this node is: a NodeConfig, and its address. */
export const NODE_TOPIC = "core/node";

/** True after admin's /healthcheck/fail: health checks fail, and connections are drained. */
export const HEALTH_TOPIC = "core/health_checks_fail";

/** The certificates that the TLS contexts of the first worker have loaded. */
export const CERTIFICATES_TOPIC = "core.certificates";

/** Longer values without a subscriber here are not kept in this isolate: core keeps their text, shared by all threads. */
const KEPT_CHARS = 16 * 1024;

/**
 * Publish and subscribe between isolates. The last value of each topic is kept for later subscribers. Values are sent and kept as JSON,
 * since most isolates never read them and they may be megabytes long.
 */
export class Topics {
  readonly #host: Host;
  readonly #texts = new Map<string, string>();
  readonly #subscribers = new Map<string, Set<(value: unknown) => void>>();
  /** Subscribers to all topics that begin alike. */
  readonly #families = new Set<Family>();

  constructor(host: Host) {
    this.#host = host;
  }

  /** Sends a value to all isolates. Subscribers in this one get a copy at once. */
  publish(topic: string, value: unknown): void {
    const text = JSON.stringify(value ?? null);
    this.#host.tellText("publish", `${topic}\0${text}`);
    this.#texts.set(topic, text);
    this.#deliver(topic, text);
  }

  /** Takes the topic's value back, in all isolates. Subscribers are told `undefined`. */
  retract(topic: string): void {
    this.#host.tellText("publish", `${topic}\0`);
    this.onPublished(topic, "");
  }

  /** Calls `onValue` with the last value, if there is one, and with later ones. Answers the function that ends the subscription. */
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

  /**
   * Calls `onValue` with the rest of the name and the last value of every topic that begins with `prefix`, and with later ones. Answers
   * the function that ends the subscription.
   */
  subscribeAll(prefix: string, onValue: Family["onValue"]): () => void {
    const family = { prefix, onValue };
    this.#families.add(family);
    const all = new Map(Object.entries(this.#host.topics(prefix)));
    for (const [topic, text] of this.#texts) if (topic.startsWith(prefix)) all.set(topic, text);
    for (const [topic, text] of all) onValue(topic.slice(prefix.length), JSON.parse(text));
    return () => void this.#families.delete(family);
  }

  /** Another isolate has published a value. `text`: JSON; "": it was taken back. */
  onPublished(topic: string, text: string): void {
    if (text === "") this.#texts.delete(topic);
    else if (text.length <= KEPT_CHARS || this.#subscribers.has(topic))
      this.#texts.set(topic, text);
    else this.#texts.delete(topic);
    this.#deliver(topic, text);
  }

  #deliver(topic: string, text: string): void {
    const subscribers = this.#subscribers.get(topic);
    const families = [...this.#families].filter(({ prefix }) => topic.startsWith(prefix));
    if (subscribers === undefined && families.length === 0) return;
    const value: unknown = text === "" ? undefined : JSON.parse(text);
    for (const onValue of [...(subscribers ?? [])]) onValue(value);
    for (const { prefix, onValue } of families) onValue(topic.slice(prefix.length), value);
  }
}

interface Family {
  readonly prefix: string;
  readonly onValue: (rest: string, value: unknown) => void;
}
