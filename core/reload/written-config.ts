import type { RuntimeConfig, SharedText, ThreadConfig } from "../protocol.ts";
import { sharedText } from "../shared-text.ts";
import type { Change, WrittenChange } from "./stage.ts";
import { textHash } from "./text-hash.ts";

interface Part {
  /** JSON, with the hash of the value added as `hash`. */
  readonly text: string;
  readonly hash: string;
  readonly thread: "worker" | "control";
}

const written = new WeakMap<RuntimeConfig, WrittenConfig>();
/** The parts of listeners and services, kept by object: several configs may share one. */
const parts = new WeakMap<object, Part>();

/**
 * A RuntimeConfig as JSON. It may be as large as 30 MB, and the canary and every thread get it. So it is written once and sent as
 * text, and parts that have not changed since the last config are found by their hashes.
 */
export class WrittenConfig {
  /** Hash of the whole config, without the values of its runtime: it is the same config when these have changed. */
  readonly hash: string;
  readonly #config: RuntimeConfig;
  readonly #listeners: readonly Part[];
  readonly #services: readonly Part[];
  readonly #texts = new Map<"worker" | "control", SharedText>();

  private constructor(config: RuntimeConfig) {
    this.#config = config;
    this.#listeners = config.listeners.map((listener) => part(listener, listener.thread));
    this.#services = config.services.map((service) => part(service));
    const { listeners: _l, services: _s, loadedRuntime: _r, ...own } = config;
    const rest = JSON.stringify(own);
    const hashes = [...this.#listeners, ...this.#services].map((made) => made.hash);
    this.hash = textHash(`${hashes.join()}${rest}`);
  }

  static of(config: RuntimeConfig): WrittenConfig {
    let known = written.get(config);
    if (known === undefined) written.set(config, (known = new WrittenConfig(config)));
    return known;
  }

  /** JSON for the isolate of a thread, with the listeners of that role only; undefined: for a canary, with all listeners. */
  text(thread?: "worker" | "control"): string {
    const listeners = this.#listeners.filter((p) => thread === undefined || p.thread === thread);
    const list = (parts: readonly Part[]) => `[${parts.map(({ text }) => text).join()}]`;
    const { node, loadedRuntime } = this.#config;
    const isCanarys = thread === undefined;
    const rest = JSON.stringify({ node, ...(isCanarys && { loadedRuntime }) }).slice(1);
    return `{"listeners":${list(listeners)},"services":${list(this.#services)},${rest}`;
  }

  /** JSON of the listeners from the nth on. */
  listeners(nth: number): string {
    return `[${this.#listeners
      .slice(nth)
      .map(({ text }) => text)
      .join()}]`;
  }

  /** The config as a thread of that role gets it. */
  for(thread: "worker" | "control"): ThreadConfig {
    const listeners = this.#config.listeners.filter((l) => (l.thread ?? "worker") === thread);
    return {
      listeners: listeners.map((listener) => ({
        name: listener.name,
        sockets:
          listener.bindToPort === false ? 0 : 1 + (listener.additionalAddresses?.length ?? 0),
        backlog: listener.backlog,
        keepAlive: listener.keepAlive,
        bufferBytes: listener.perConnectionBufferLimitBytes,
      })),
      text: this.#textFor(thread),
    };
  }

  /** JSON for that role, in the same memory for all its threads. */
  #textFor(thread: "worker" | "control"): SharedText {
    let text = this.#texts.get(thread);
    if (text === undefined) this.#texts.set(thread, (text = sharedText(this.text(thread))));
    return text;
  }
}

export function writtenChange({ config, ...change }: Change): WrittenChange {
  return { ...change, config: config && WrittenConfig.of(config).text() };
}

function part(value: object, thread: "worker" | "control" = "worker"): Part {
  let made = parts.get(value);
  if (made === undefined) {
    const text = JSON.stringify(value);
    const digest = textHash(text);
    made = { text: `{"hash":"${digest}",${text.slice(1)}`, hash: digest, thread };
    parts.set(value, made);
  }
  return made;
}
