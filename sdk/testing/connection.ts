import { latin1Decode, type Output } from "../bytes.ts";
import type { Address, DownstreamConnection, NetworkChain } from "../network.ts";
import type { TlsInfo } from "../transport.ts";

/** A connection without a socket: records what is written and how it was closed. */
export class TestConnection implements DownstreamConnection {
  terminationDetails: string | undefined = undefined;
  responseFlag: string | undefined = undefined;
  readonly id: number;
  remoteAddress: Address = { ip: "192.0.2.1", port: 40000 };
  localAddress: Address = { ip: "127.0.0.1", port: 10000 };
  listener = { name: "test", statPrefix: "127.0.0.1_10000", direction: "UNSPECIFIED" as const };
  startTime = 0;
  transportProtocol = "raw_buffer";
  serverName = "";
  applicationProtocols: readonly string[] = [];
  filterState: Map<string, unknown> | undefined = undefined;
  secure = false;
  tls: TlsInfo | undefined = undefined;
  draining = false;
  open = true;
  blocked = false;
  bytesReceived = 0;
  bytesSent = 0;
  /** How it was closed; undefined: it is open. */
  closed: "flush" | "abort" | "reset" | "delayed" | undefined = undefined;
  ended = false;
  /** How many calls of `pause` have not been undone by `resume`. */
  pauses = 0;
  agains = 0;
  /** How often its filter has called `chain.resumeReading`. */
  resumed = 0;
  /** What its filter is created with: `factory.create(connection, connection.chain)`. */
  readonly chain: NetworkChain = {
    resumeReading: () => {
      this.resumed++;
    },
    injectWrite: (bytes, endStream = false) => {
      this.write(bytes, 0, bytes.length);
      if (endStream) this.end();
    },
  };
  #written = "";
  #reserved = 0;
  readonly #output: Output = { memory: new Uint8Array(0), at: 0 };

  constructor(id = 1) {
    this.id = id;
  }

  /** All that was written since the last `take`, one char per byte. */
  get written(): string {
    return this.#written;
  }
  take(): string {
    const text = this.#written;
    this.#written = "";
    return text;
  }

  setFilterState(key: string, value: unknown): void {
    this.filterState ??= new Map();
    this.filterState.set(key, value);
  }

  reserve(size: number): Output {
    this.#reserved = size;
    this.#output.memory = new Uint8Array(size);
    this.#output.at = 0;
    return this.#output;
  }
  commit(output: Output): void {
    if (output.at > this.#reserved)
      throw new Error(`wrote ${output.at} bytes where ${this.#reserved} were reserved`);
    this.write(output.memory, 0, output.at);
  }
  write(memory: Uint8Array, at: number, end: number): void {
    if (!this.open || this.ended) return;
    this.bytesSent += end - at;
    this.#written += latin1Decode(memory, at, end);
  }
  end(): void {
    this.ended = true;
  }
  close(how: "flush" | "abort" | "reset"): void {
    if (this.open) this.closed = how;
    this.open = false;
  }
  closeDelayed(_ms: number): void {
    if (this.open) this.closed = "delayed";
    this.ended = true;
  }
  pause(): void {
    this.pauses++;
  }
  resume(): void {
    this.pauses--;
  }
  again(): void {
    this.agains++;
  }
}
