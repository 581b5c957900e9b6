import http2 from "node:http2";
import { eventually } from "./client.ts";

/** A whole answer to one stream. */
export interface Answer {
  /** Number of the connection that it came over. */
  readonly connection: number;
  readonly headers: http2.IncomingHttpHeaders;
  readonly tookMs: number;
}

export interface StreamLoadOptions {
  connect(): http2.ClientHttp2Session;
  readonly connections: number;
  /** How many streams each connection has open at any time. */
  readonly streams: number;
  /** What each answer's body has to be. */
  readonly body: string;
}

/**
 * Clients of HTTP/2, each with a connection that it keeps and streams that follow each other, for as long as the load runs. One
 * that is told to go away opens its next streams on a new connection, as RFC 9113 §6.8 has it.
 */
export class StreamLoad {
  readonly failures: string[] = [];
  readonly #options: StreamLoadOptions;
  readonly #clients: Promise<void>[];
  readonly #onAnswer = new Set<(answer: Answer) => void>();
  /** The connections that new streams are opened on, by their numbers. */
  readonly #current = new Map<number, http2.ClientHttp2Session>();
  #running = true;
  #opened = 0;
  answers = 0;

  constructor(options: StreamLoadOptions) {
    this.#options = options;
    this.#clients = Array.from({ length: options.connections }, () => this.#keepClient());
  }

  /** How many connections there have been. */
  get opened(): number {
    return this.#opened;
  }

  /** Settles once each connection that is open now has had an answer that satisfies `holds`. */
  async untilSameConnections(holds: (answer: Answer) => boolean): Promise<void> {
    const left = new Set(this.#current.keys());
    await this.#watching(
      (answer) => void (holds(answer) && left.delete(answer.connection)),
      () => left.size === 0,
      "answers by the new code on each open connection",
    );
  }

  /** Settles once every client has left the connection that it has now, and has had an answer over another. */
  async untilMoved(): Promise<void> {
    const last = this.#opened;
    const moved = new Set<number>();
    await this.#watching(
      ({ connection }) => void (connection > last && moved.add(connection)),
      () => moved.size >= this.#options.connections,
      "answers over new connections",
    );
  }

  /** One more request on a connection of the load: its status, or "reset" if no whole answer came. */
  ask(path: string, body = ""): Promise<number | "reset"> {
    const [session] = this.#current.values();
    const method = body === "" ? "GET" : "POST";
    const stream = session!.request({ ":path": path, ":method": method });
    let status = 0;
    stream.on("response", (head) => {
      status = Number(head[":status"]);
    });
    stream.on("error", () => {});
    stream.resume();
    stream.end(body);
    return new Promise((resolve) => {
      stream.on("close", () => resolve(stream.rstCode === 0 ? status : "reset"));
    });
  }

  /** Settles after so many further answers, and tells them. */
  async pass(count: number): Promise<readonly Answer[]> {
    const seen: Answer[] = [];
    await this.#watching(
      (answer) => void seen.push(answer),
      () => seen.length >= count,
      `${count} further answers`,
    );
    return seen;
  }

  async stop(): Promise<void> {
    this.#running = false;
    await Promise.all(this.#clients);
  }

  async #watching(
    onAnswer: (answer: Answer) => void,
    isOver: () => boolean,
    what: string,
  ): Promise<void> {
    this.#onAnswer.add(onAnswer);
    try {
      await eventually(isOver, (over) => over, what, 1);
    } finally {
      this.#onAnswer.delete(onAnswer);
    }
  }

  async #keepClient(): Promise<void> {
    while (this.#running) await this.#keepConnection();
  }

  async #keepConnection(): Promise<void> {
    const session = this.#options.connect();
    const connection = ++this.#opened;
    this.#current.set(connection, session);
    const closed = new Promise<void>((resolve) => session.on("close", () => resolve()));
    session.on("error", (error) => this.failures.push(`connection ${connection}: ${error}`));
    const streams = Array.from({ length: this.#options.streams }, async () => {
      while (this.#running && !session.closed) await this.#ask(session, connection);
    });
    await Promise.all(streams);
    this.#current.delete(connection);
    if (!session.closed) session.close();
    await closed;
  }

  #ask(session: http2.ClientHttp2Session, connection: number): Promise<void> {
    const started = performance.now();
    const stream = session.request({ ":path": "/" });
    let headers: http2.IncomingHttpHeaders & http2.IncomingHttpStatusHeader = {};
    let text = "";
    stream.setEncoding("utf8");
    stream.on("response", (head) => {
      headers = head;
    });
    stream.on("data", (piece: string) => {
      text += piece;
    });
    return new Promise((resolve) => {
      stream.on("error", () => {});
      stream.on("close", () => {
        const { rstCode } = stream;
        // Node's client gives up streams that it has not sent when it is told to go away; the proxy never sees them.
        const isUnsent = session.closed && rstCode === http2.constants.NGHTTP2_REFUSED_STREAM;
        if (!isUnsent) {
          this.answers++;
          if (headers[":status"] !== 200 || text !== this.#options.body)
            this.failures.push(
              `connection ${connection}: ${rstCode} ${headers[":status"]} "${text}"`,
            );
          const answer = { connection, headers, tookMs: performance.now() - started };
          for (const onAnswer of this.#onAnswer) onAnswer(answer);
        }
        resolve();
      });
    });
  }
}
