import {
  type Chunk,
  type CloseEvent,
  type Connection,
  type ConnectionHandler,
  containsInOrder,
  defineHealthChecker,
  type HealthEvents,
  type HealthSession,
  type HealthTarget,
  payloadBytes,
  TcpHealthCheck,
} from "@tsproxy/sdk";

const MAX_ANSWER_BYTES = 65_536; // `receive` is looked for in the first bytes of an answer only

interface Exchange {
  readonly send: Uint8Array | undefined;
  readonly receive: readonly Uint8Array[];
}

/** Connects to a host, and where the config says so sends bytes and waits for others. */
class TcpSession implements HealthSession, ConnectionHandler {
  readonly #exchange: Exchange;
  readonly #target: HealthTarget;
  readonly #events: HealthEvents;
  #connection: Connection | undefined = undefined;
  #answer: Uint8Array = new Uint8Array(0);
  #waiting = false;
  /** We have closed the connection ourselves: its end is no failure. */
  #leaving = false;

  constructor(exchange: Exchange, target: HealthTarget, events: HealthEvents) {
    this.#exchange = exchange;
    this.#target = target;
    this.#events = events;
  }

  check(): void {
    this.#waiting = true;
    this.#answer = new Uint8Array(0);
    if (this.#connection?.open === true) {
      this.#send();
      return;
    }
    this.#leaving = false;
    this.#connection = this.#target.connect(this);
  }

  onTimeout(): void {
    this.#waiting = false;
    this.#leave();
  }

  close(): void {
    this.#waiting = false;
    this.#leave();
  }

  #leave(): void {
    this.#leaving = true;
    this.#connection?.close("abort");
    this.#connection = undefined;
  }

  #send(): void {
    const { send } = this.#exchange;
    if (send !== undefined) this.#connection?.write(send, 0, send.length);
  }

  onConnected(): void {
    const { receive } = this.#exchange;
    this.#send();
    if (receive.length > 0) return;
    // Nothing is to be received, so a host that accepts the connection is healthy.
    this.#waiting = false;
    this.#leave();
    this.#events.onHealthy({ degraded: false });
  }

  onData(chunk: Chunk): void {
    const { receive } = this.#exchange;
    if (!this.#waiting || receive.length === 0) return;
    const before = this.#answer;
    // What was looked through in vain is not looked through again with each byte that follows.
    if (before.length === MAX_ANSWER_BYTES) return;
    const size = chunk.end - chunk.at;
    const answer = new Uint8Array(Math.min(before.length + size, MAX_ANSWER_BYTES));
    answer.set(before);
    answer.set(
      chunk.memory.subarray(chunk.at, chunk.at + answer.length - before.length),
      before.length,
    );
    this.#answer = answer;
    if (!containsInOrder(answer, receive)) return;
    this.#waiting = false;
    if (!this.#target.reuseConnection) this.#leave();
    this.#events.onHealthy({ degraded: false });
  }

  onEof(): void {
    this.#connection?.close("abort");
  }

  onClosed(_event: CloseEvent): void {
    this.#connection = undefined;
    if (this.#leaving || !this.#waiting) return;
    this.#waiting = false;
    this.#events.onFailure({ type: "network" });
  }
}

export default defineHealthChecker({
  name: "envoy.health_checkers.tcp",
  config: TcpHealthCheck,
  setup(config) {
    const exchange: Exchange = {
      send: config.send && payloadBytes(config.send, "send"),
      receive: (config.receive ?? []).map((block, k) => payloadBytes(block, `receive[${k}]`)),
    };
    return {
      type: "TCP",
      create: (target, events) => new TcpSession(exchange, target, events),
    };
  },
});
