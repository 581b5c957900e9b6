// Hot path: every read passes here.
import {
  type Chunk,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkFilter,
  Type,
} from "@tsproxy/sdk";

/** Sends back what comes, and no faster than the client takes it. */
class Echo implements NetworkFilter {
  readonly #connection: DownstreamConnection;
  #paused = false;

  constructor(connection: DownstreamConnection) {
    this.#connection = connection;
  }

  onData(chunk: Chunk, endStream: boolean): void {
    const connection = this.#connection;
    if (chunk.end > chunk.at) connection.write(chunk.memory, chunk.at, chunk.end);
    if (endStream) connection.close("flush");
    else if (connection.blocked) this.onBlocked();
  }

  onBlocked(): void {
    if (this.#paused) return;
    this.#paused = true;
    this.#connection.pause();
  }

  onDrained(): void {
    if (!this.#paused) return;
    this.#paused = false;
    this.#connection.resume();
  }
}

export default defineNetworkFilter({
  name: "envoy.filters.network.echo",
  aliases: ["envoy.echo"],
  types: ["envoy.extensions.filters.network.echo.v3.Echo"],
  terminal: true,
  config: Type.Object({}),
  setup: () => ({ create: (connection) => new Echo(connection) }),
});
