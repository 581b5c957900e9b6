import type {
  DownstreamConnection,
  NetworkFilter,
  NetworkFilterFactory,
  SetupContext,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";
import { HcmConnection } from "./connection.ts";
import { Runtime } from "./runtime.ts";
import { HcmStream } from "./stream.ts";

/** Stream objects that wait for their next stream; a busy worker has about as many streams at once. */
const STREAMS_KEPT = 1024;

/** One connection manager of the config: what its connections share. */
export class ConnectionManager implements NetworkFilterFactory {
  readonly cx: SetupContext;
  /** What new streams take; replaced as a whole when the config changes. */
  runtime: Runtime;
  /** An operator wants clients to leave: each answer closes its connection. */
  leaving = false;
  readonly #free: HcmStream[] = [];
  readonly #ended: HcmStream[] = [];

  constructor(config: Config, cx: SetupContext) {
    this.cx = cx;
    this.runtime = new Runtime(config, cx);
    // Admin answers on as ever, so that health checks can be told to pass again.
    if (cx.role !== "control")
      cx.subscribe("core/health_checks_fail", (failing) => {
        this.leaving = failing === true;
      });
  }

  create(connection: DownstreamConnection): NetworkFilter {
    return new HcmConnection(this, connection);
  }

  reconfigure(config: unknown, cx: SetupContext): () => void {
    const next = new Runtime(config as Config, cx);
    return () => {
      this.runtime = next;
    };
  }

  takeStream(): HcmStream {
    return this.#free.pop() ?? new HcmStream(this.cx);
  }

  giveBack(stream: HcmStream): void {
    if (this.#ended.length + this.#free.length < STREAMS_KEPT) this.#ended.push(stream);
  }

  /** Called where an event begins: calls of streams that have ended are still on the stack at any other time. */
  reuseStreams(): void {
    const ended = this.#ended;
    while (ended.length > 0) this.#free.push(ended.pop()!);
  }
}
