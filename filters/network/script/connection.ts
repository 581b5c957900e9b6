import {
  type Address,
  type Chunk,
  type DownstreamConnection,
  type NetworkChain,
  utf8Encode,
} from "@tsproxy/sdk";

/** `conn`: the client's connection as a script sees it. */
export class ScriptConnection {
  /** Whatever the script keeps for this connection. */
  readonly state: Record<string, unknown> = {};
  readonly #connection: DownstreamConnection;
  readonly #chain: NetworkChain;

  constructor(connection: DownstreamConnection, chain: NetworkChain) {
    this.#connection = connection;
    this.#chain = chain;
  }

  get id(): number {
    return this.#connection.id;
  }
  get remoteAddress(): Address {
    return this.#connection.remoteAddress;
  }
  get localAddress(): Address {
    return this.#connection.localAddress;
  }
  get serverName(): string {
    return this.#connection.serverName;
  }
  get applicationProtocols(): readonly string[] {
    return this.#connection.applicationProtocols;
  }
  /** Sends to the client; this script's `onWrite` does not see it. */
  send(data: string | Uint8Array): void {
    const bytes = typeof data === "string" ? utf8Encode(data) : data;
    this.#chain.injectWrite(bytes);
  }
  /** `flush`: when everything has been sent; `abort`: at once; `reset`: at once, with RST. */
  close(how: "flush" | "abort" | "reset" = "flush"): void {
    this.#connection.close(how);
  }
}

/** `data`: the bytes of one hook. */
export class ScriptData {
  readonly #chunk: Chunk;

  constructor(chunk: Chunk) {
    this.#chunk = chunk;
  }

  get length(): number {
    return this.#chunk.length;
  }
  /** A copy of its own. */
  bytes(): Uint8Array {
    return this.#chunk.copy();
  }
  text(): string {
    return this.#chunk.text();
  }
  /** Sends these bytes on instead, to the next filters or (in `onWrite`) to the client; "" sends nothing. */
  replace(data: string | Uint8Array): void {
    this.#chunk.replace(typeof data === "string" ? utf8Encode(data) : data);
  }
}
