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

/** Limit of HcmStream objects that are kept to be reused; a busy worker has about as many streams at once. */
const STREAMS_KEPT = 1024;

/** One connection manager of the config: what all of its connections share. */
export class ConnectionManager implements NetworkFilterFactory {
  readonly cx: SetupContext;
  /** The config of new streams; replaced as a whole when the config changes. */
  runtime: Runtime;
  /** `/healthcheck/fail` was called: responses ask their clients to leave. */
  leaving = false;
  readonly #free: HcmStream[] = [];
  readonly #ended: HcmStream[] = [];

  constructor(config: Config, cx: SetupContext) {
    this.cx = cx;
    this.runtime = new Runtime(config, cx);
    // Connections to the admin interface (role `control`) stay, so that `/healthcheck/ok` can be called.
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
      this.#free.length = 0;
    };
  }

  /** Takes or makes the object for a new stream. */
  takeStream(): HcmStream {
    return this.#free.pop() ?? new HcmStream(this.cx);
  }

  /** Keeps the object of an ended stream, until `reuseStreams` frees it; none that would keep a config alive which has been replaced. */
  giveBack(stream: HcmStream): void {
    if (!stream.hasRun(this.runtime)) return;
    if (this.#ended.length + this.#free.length < STREAMS_KEPT) this.#ended.push(stream);
  }

  /** Frees the objects of ended streams. Called where an event begins: later, such a stream's calls may be on the stack. */
  reuseStreams(): void {
    const ended = this.#ended;
    while (ended.length > 0) {
      const stream = ended.pop()!;
      stream.info.end();
      this.#free.push(stream);
    }
  }
}
