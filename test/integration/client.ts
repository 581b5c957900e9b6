import http from "node:http";
import net from "node:net";
import { patienceMs } from "./patience.ts";

export interface Answer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly trailers: NodeJS.Dict<string>;
  readonly body: Buffer;
  readonly text: string;
}

export interface Ask {
  readonly method?: string;
  readonly headers?: http.OutgoingHttpHeaders;
  readonly body?: string | Buffer;
  /** Keeps the connection for the next request of the same agent. */
  readonly agent?: http.Agent;
}

/** One request on a connection of its own, unless an agent says otherwise. */
export function get(port: number, path: string, ask: Ask = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const { method = "GET", headers = {}, body, agent } = ask;
    const request = http.request({
      host: "127.0.0.1",
      port,
      path,
      method,
      headers,
      agent: agent ?? false,
    });
    request.on("error", reject);
    request.on("response", (response) => {
      const pieces: Buffer[] = [];
      response.on("data", (piece: Buffer) => pieces.push(piece));
      response.on("error", reject);
      response.on("end", () => {
        const whole = Buffer.concat(pieces);
        resolve({
          status: response.statusCode!,
          headers: response.headers,
          trailers: response.trailers,
          body: whole,
          text: whole.toString(),
        });
      });
    });
    request.end(body);
  });
}

/** A client that says the bytes it is told to say. */
export class RawClient {
  readonly socket: net.Socket;
  #text = "";
  #ended = false;
  #closed = false;
  readonly #waiting = new Set<() => void>();

  private constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setEncoding("latin1");
    socket.setNoDelay(true);
    socket.on("data", (text: string) => {
      this.#text += text;
      this.#look();
    });
    socket.on("end", () => {
      this.#ended = true;
      this.#look();
    });
    // What became of a connection is seen in `closed`.
    socket.on("error", () => {});
    socket.on("close", () => {
      this.#closed = this.#ended = true;
      this.#look();
    });
  }

  static connect(port: number): Promise<RawClient> {
    return new Promise((resolve, reject) => {
      const socket = net.connect(port, "127.0.0.1");
      socket.once("error", reject);
      socket.once("connect", () => {
        socket.off("error", reject);
        resolve(new RawClient(socket));
      });
    });
  }

  /** Everything that has come so far, a char a byte. */
  get text(): string {
    return this.#text;
  }
  get ended(): boolean {
    return this.#ended;
  }
  get closed(): boolean {
    return this.#closed;
  }

  send(text: string): void {
    this.socket.write(text, "latin1");
  }
  /** FIN; the other direction stays open. */
  end(): void {
    this.socket.end();
  }
  destroy(): void {
    this.socket.destroy();
  }

  /** Settles once the predicate holds; looks at every event. */
  until(holds: (client: RawClient) => boolean, what = String(holds)): Promise<void> {
    return new Promise((resolve, reject) => {
      const settle = () => {
        if (!holds(this)) return;
        clearTimeout(deadline);
        this.#waiting.delete(settle);
        resolve();
      };
      const deadline = setTimeout(() => {
        this.#waiting.delete(settle);
        const got = JSON.stringify(this.#text.slice(-400));
        reject(new Error(`never came: ${what}; received ${this.#text.length} bytes, last ${got}`));
      }, patienceMs());
      this.#waiting.add(settle);
      settle();
    });
  }
  untilText(text: string): Promise<void> {
    return this.until((client) => client.text.includes(text), text);
  }
  untilClosed(): Promise<void> {
    return this.until((client) => client.closed, "the end of the connection");
  }
  untilEnded(): Promise<void> {
    return this.until((client) => client.ended, "FIN");
  }

  #look(): void {
    for (const settle of [...this.#waiting]) settle();
  }
}

/** Asks again until it holds. For what can only be asked for: gauges, files, other processes. */
export async function eventually<T>(
  ask: () => Promise<T> | T,
  holds: (value: T) => boolean,
  what: string,
  everyMs = 20,
): Promise<T> {
  const until = performance.now() + patienceMs();
  for (;;) {
    const value = await ask();
    if (holds(value)) return value;
    if (performance.now() > until) {
      throw new Error(`never became true: ${what}; last seen ${JSON.stringify(value)}`);
    }
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

/** A promise and what settles it. */
export function deferred<T = void>(): {
  promise: Promise<T>;
  resolve: (value: T) => void;
  reject: (error: Error) => void;
} {
  return Promise.withResolvers<T>();
}
