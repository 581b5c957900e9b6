// Hot path: every stream makes one for each sandboxed filter.
import type {
  DownstreamFacts,
  HttpStream,
  RequestHeaders,
  Responder,
  ResponseHeaders,
  Route,
  StreamInfo,
  Timer,
} from "@tsproxy/sdk";
import { Facts } from "./facts.ts";
import type { StreamState } from "./stream-state.ts";
import type { Surroundings } from "./surroundings.ts";

/** A stream as a sandboxed filter sees it: the parts that records brought, and what can be done without the chain. */
export class SandboxStream implements HttpStream {
  readonly id: number;
  readonly #around: Surroundings;
  #state: StreamState | undefined;
  #facts: Facts | undefined = undefined;
  #sleeps: Timer[] | undefined = undefined;
  #routeConfigs: readonly unknown[] = NONE;

  constructor(around: Surroundings, state: StreamState, token: number) {
    this.#around = around;
    this.#state = state;
    this.id = token >>> 1;
    const { routeConfig, facts } = state;
    if (facts !== undefined) this.learn(facts);
    if (routeConfig === undefined) return;
    const configs = around.routeConfigs.get(routeConfig);
    this.#routeConfigs = state.use?.factory.routes?.all(configs) ?? configs;
  }

  /** `text`: facts in JSON, from the stub in the chain. */
  learn(text: string): void {
    this.#facts ??= new Facts();
    this.#facts.push(text);
  }

  /** JSON of what the filter has set since the last call; "" if nothing. */
  changes(): string {
    return this.#facts === undefined ? "" : this.#facts.changes();
  }

  get #open(): StreamState {
    if (this.#state === undefined) throw new Error("the stream has ended");
    return this.#state;
  }

  get request(): RequestHeaders {
    return this.#open.request!.head.map;
  }

  get response(): ResponseHeaders | undefined {
    const state = this.#open;
    return state.response?.head.map;
  }

  get info(): StreamInfo {
    return (this.#facts ??= new Facts()).info;
  }

  get route(): Route | undefined {
    return (this.#facts ??= new Facts()).route;
  }

  get downstreamConnection(): DownstreamFacts | undefined {
    return (this.#facts ??= new Facts()).downstream;
  }

  get metadata(): Map<string, Record<string, unknown>> {
    return (this.#facts ??= new Facts()).metadata;
  }

  get filterState(): Map<string, unknown> {
    return (this.#facts ??= new Facts()).filterState;
  }

  get connectionState(): Map<string, unknown> {
    return (this.#facts ??= new Facts()).connectionState;
  }

  clearRoute(): void {
    this.#open.clearRoute = true;
  }

  get routeConfig(): unknown {
    return this.#routeConfigs.at(-1);
  }

  get routeConfigs(): readonly unknown[] {
    return this.#routeConfigs;
  }

  get responder(): Responder {
    throw new Error("a terminal filter cannot live in a sandbox yet");
  }

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      if (this.#state === undefined) return;
      const timer = this.#around.clock.timer(resolve);
      timer.arm(ms);
      if (this.#sleeps === undefined) this.#sleeps = [];
      else if (this.#sleeps.length >= 16)
        this.#sleeps = this.#sleeps.filter((sleep) => sleep.armed);
      this.#sleeps.push(timer);
    });
  }

  /** The stream has ended: its timers are cancelled, and reading it throws. */
  close(): void {
    this.#state = undefined;
    if (this.#sleeps !== undefined) for (const timer of this.#sleeps) timer.cancel();
    this.#sleeps = undefined;
  }
}

const NONE: readonly unknown[] = [];
