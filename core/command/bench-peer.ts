/**
 * The two peers of a measured proxy, each in a process of its own (`fork(bench-peer, ["upstream" | "load"])`), so that their CPU
 * time is not counted with the proxy's.
 */
import net, { type AddressInfo } from "node:net";
import { Messages } from "./bench-messages.ts";

/** Asks the load process to send requests over so many connections for so long. */
export interface Slice {
  readonly port: number;
  readonly ms: number;
  readonly connections: number;
  /** A whole request without a body. */
  readonly request: string;
}

/** The load process's answer to a Slice. */
export interface Load {
  readonly requests: number;
  /** Answers, by status. */
  readonly statuses: Readonly<Record<string, number>>;
  /** Requests that got no answer. */
  readonly lost: number;
}

const ANSWER =
  "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 30\r\n\r\nhello from behind this proxy.\n";
/** A request that is not answered so long after the end of the slice is lost. */
const PATIENCE_MS = 3_000;
/** A connection that has lost so many requests in a slice sends no more. */
const LOST_MAX = 20;

function upstream(): void {
  const server = net.createServer((socket) => {
    socket.setNoDelay();
    let due = 0;
    const messages = new Messages(() => void due++);
    socket.on("error", () => socket.destroy());
    socket.on("data", (data) => {
      if (!messages.read(data)) socket.destroy();
      else if (due > 0) socket.write(due === 1 ? ANSWER : ANSWER.repeat(due));
      due = 0;
    });
  });
  server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
}

/** A connection that sends a request, waits for the answer and sends the next. It stays open between slices. */
class Client {
  readonly #port: number;
  #socket: net.Socket | undefined;
  #request = "";
  #until = 0;
  #lost = 0;
  #count: Map<string, number> = new Map();
  #end: ((lost: number) => void) | undefined;

  constructor(port: number) {
    this.#port = port;
  }

  /** Sends requests until `until` (as in `Date.now()`) and counts answers by status. Answers how many requests were lost. */
  run(request: string, until: number, count: Map<string, number>): Promise<number> {
    this.#request = request;
    this.#until = until;
    this.#count = count;
    this.#lost = 0;
    return new Promise((resolve) => {
      const late = setTimeout(() => this.#socket?.destroy(), until - Date.now() + PATIENCE_MS);
      this.#end = (lost) => {
        clearTimeout(late);
        this.#end = undefined;
        resolve(lost);
      };
      this.#ask();
    });
  }

  #ask(): void {
    if (Date.now() >= this.#until || this.#lost >= LOST_MAX) this.#end?.(this.#lost);
    else {
      this.#socket ??= this.#connect();
      this.#socket.write(this.#request);
    }
  }

  #connect(): net.Socket {
    const socket = net.connect({ port: this.#port, host: "127.0.0.1", noDelay: true });
    const messages = new Messages((line) => {
      const status = line.slice(9, 12);
      this.#count.set(status, (this.#count.get(status) ?? 0) + 1);
      this.#ask();
    });
    socket.on("data", (data) => {
      if (!messages.read(data)) socket.destroy();
    });
    socket.on("error", () => socket.destroy());
    // A half-closed connection is of no use.
    socket.on("end", () => socket.destroy());
    socket.on("close", () => {
      if (this.#socket === socket) this.#socket = undefined;
      if (this.#end === undefined) return;
      this.#lost++;
      this.#ask();
    });
    return socket;
  }
}

function load(): void {
  const clients = new Map<number, Client[]>();
  process.on("message", async ({ port, ms, connections, request }: Slice) => {
    const own = clients.get(port) ?? Array.from({ length: connections }, () => new Client(port));
    clients.set(port, own);
    const count = new Map<string, number>();
    const until = Date.now() + ms;
    const lost = await Promise.all(own.map((client) => client.run(request, until, count)));
    const requests = [...count.values()].reduce((sum, n) => sum + n, 0);
    const told: Load = {
      requests,
      statuses: Object.fromEntries(count),
      lost: lost.reduce((sum, n) => sum + n, 0),
    };
    process.send?.(told);
  });
  process.send?.(0);
}

process.on("disconnect", () => process.exit());
// Ctrl-C reaches all processes of a terminal. The parent ends this one, once it has cleaned up.
process.on("SIGINT", () => {});
if (process.argv[2] === "upstream") upstream();
else load();
