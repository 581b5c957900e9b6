import http from "node:http";
import https from "node:https";
import type { Exchange } from "../dev-events.ts";

/** The answer to a request. Header names are lower case. */
export interface Answer {
  readonly status: number;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string;
}

export interface Replayed {
  readonly method: string;
  readonly path: string;
  readonly verdict: "same" | "differs" | "failed";
  readonly before: number;
  /** Status of the new answer; 0: there was none. */
  readonly after: number;
  readonly headers: readonly LineChange[];
  readonly body: readonly LineChange[];
  /** Why there was no answer; "" if there was. */
  readonly error: string;
}

/** A line that is gone (`-`) or new (`+`). */
export interface LineChange {
  readonly sign: "-" | "+";
  readonly text: string;
}

interface Kept {
  readonly exchange: Exchange;
  last: Answer;
}

/** A request that takes longer counts as unanswered. */
const ANSWER_MS = 5_000;
/** Response headers that differ every time, and so are not compared. */
const VOLATILE = new Set(["date", "x-request-id", "x-envoy-upstream-service-time"]);
/** Request headers that are not sent again: the connection manager or the HTTP client sets them. */
const NOT_SENT =
  /^(?:host|connection|keep-alive|transfer-encoding|x-request-id|x-forwarded-proto|x-envoy-.*)$/;

/** Keeps the last requests, each different one once, and sends them again to new code. */
export class Replay {
  readonly #most: number;
  readonly #kept = new Map<string, Kept>();
  /** By the local addresses of replaying connections: called with the exchange that the proxy reports for each. */
  readonly #own = new Map<string, (exchange: Exchange) => void>();

  constructor(most: number) {
    this.#most = most;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** Takes an exchange that the proxy reports. False: it belongs to a replayed request. */
  add(exchange: Exchange): boolean {
    const own = this.#own.get(exchange.client);
    own?.(exchange);
    if (own !== undefined) return false;
    const { method, path, authority, request, response, status, isWhole } = exchange;
    const isPlain = !request.cut && !response.cut && isWhole && status >= 200;
    if (!isPlain || this.#most === 0) return true;
    const key = JSON.stringify([method, authority, path, request.body, exchange.listener.port]);
    this.#kept.delete(key);
    this.#kept.set(key, { exchange, last: answerOf(exchange) });
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > this.#most && oldest !== undefined) this.#kept.delete(oldest);
    return true;
  }

  /** Sends each kept request again, one after the other as they came, and compares the answer with that of the code before. */
  async run(): Promise<Replayed[]> {
    const all: Replayed[] = [];
    for (const kept of [...this.#kept.values()]) all.push(await this.#again(kept));
    return all;
  }

  async #again(kept: Kept): Promise<Replayed> {
    const { method, path } = kept.exchange;
    const { last } = kept;
    const same = { method, path, before: last.status, headers: [], body: [], error: "" };
    try {
      const answer = await this.#send(kept.exchange);
      kept.last = answer;
      const headers = linesChanged(headerLines(last), headerLines(answer));
      const body = linesChanged(last.body.split("\n"), answer.body.split("\n"));
      const differs = answer.status !== last.status || headers.length > 0 || body.length > 0;
      const verdict = differs ? "differs" : "same";
      return { ...same, verdict, after: answer.status, headers, body };
    } catch (error) {
      return { ...same, verdict: "failed", after: 0, error: (error as Error).message };
    }
  }

  /**
   * Sends a request again. Its answer is taken from the recorder in the filter chain, as the first one was, so that what the
   * connection manager adds to it makes no difference.
   */
  async #send(exchange: Exchange): Promise<Answer> {
    let client = "";
    let told: (exchange: Exchange) => void = () => {};
    const seen = new Promise<Exchange>((resolve) => (told = resolve));
    const late = new Promise<undefined>((resolve) => {
      setTimeout(() => resolve(undefined), ANSWER_MS).unref();
    });
    try {
      await this.#request(exchange, (address) => {
        client = address;
        this.#own.set(client, told);
      });
      const found = await Promise.race([seen, late]);
      if (found === undefined) throw new Error("the answer came from outside of the filter chain");
      return answerOf(found);
    } finally {
      this.#own.delete(client);
    }
  }

  /** Settles with the end of the response. `onConnect` gets the connection's local address. */
  #request(exchange: Exchange, onConnect: (address: string) => void): Promise<void> {
    const { method, path, authority, request, listener } = exchange;
    const isTls = exchange.request.head.some(
      ([name, value]) => name.toLowerCase() === "x-forwarded-proto" && value === "https",
    );
    const headers = [["host", authority], ...request.head.filter(([name]) => mayBeSent(name))];
    const body = Buffer.from(request.body, "latin1");
    if (body.length > 0 && !headers.some(([name]) => name === "content-length"))
      headers.push(["content-length", String(body.length)]);
    const local = listener.ip.startsWith("0.0.0.0") ? "127.0.0.1" : listener.ip;
    const options = { host: local, port: listener.port, method, path, headers: headers.flat() };
    const name = authority.replace(/:\d+$/, "");
    return new Promise((resolve, reject) => {
      const sent = isTls
        ? https.request({ ...options, agent: false, rejectUnauthorized: false, servername: name })
        : http.request({ ...options, agent: false });
      sent.setTimeout(ANSWER_MS, () =>
        sent.destroy(new Error(`no answer in ${ANSWER_MS / 1000} s`)),
      );
      sent.on("socket", (socket) => {
        const note = () => onConnect(`${socket.localAddress}:${socket.localPort}`);
        if (socket.connecting) socket.once("connect", note);
        else note();
      });
      sent.on("error", reject);
      sent.on("response", (response) => {
        response.on("error", reject);
        response.on("end", () => resolve());
        response.resume();
      });
      sent.end(body);
    });
  }
}

function mayBeSent(name: string): boolean {
  return !name.startsWith(":") && !NOT_SENT.test(name.toLowerCase());
}

function answerOf({ status, response }: Exchange): Answer {
  const headers = response.head.map(([name, value]) => [name.toLowerCase(), value] as const);
  return { status, headers, body: response.body };
}

/** Framing headers, which are not compared: a changed body is reported by itself. */
const FRAMING = new Set(["connection", "keep-alive", "transfer-encoding", "content-length"]);

function headerLines({ headers }: Answer): string[] {
  return headers
    .filter(([name]) => !name.startsWith(":") && !VOLATILE.has(name) && !FRAMING.has(name))
    .map(([name, value]) => `${name}: ${value}`)
    .sort();
}

/** If the parts that differ are longer, they are reported as a whole. */
const MOST_LINES = 400;

/** The lines in which two texts differ, in order: all but their longest common subsequence. */
export function linesChanged(before: readonly string[], after: readonly string[]): LineChange[] {
  let from = 0;
  while (from < before.length && from < after.length && before[from] === after[from]) from++;
  let [b, a] = [before.length, after.length];
  while (b > from && a > from && before[b - 1] === after[a - 1]) [b, a] = [b - 1, a - 1];
  const gone = before.slice(from, b);
  const come = after.slice(from, a);
  if (gone.length * come.length > MOST_LINES ** 2) return [...minus(gone), ...plus(come)];
  const width = come.length + 1;
  // common[i * width + j]: how many lines gone[i..] and come[j..] share.
  const common = new Uint16Array((gone.length + 1) * width);
  for (let i = gone.length - 1; i >= 0; i--)
    for (let j = come.length - 1; j >= 0; j--)
      common[i * width + j] =
        gone[i] === come[j]
          ? common[(i + 1) * width + j + 1]! + 1
          : Math.max(common[(i + 1) * width + j]!, common[i * width + j + 1]!);
  const changes: LineChange[] = [];
  let [i, j] = [0, 0];
  while (i < gone.length && j < come.length) {
    if (gone[i] === come[j]) [i, j] = [i + 1, j + 1];
    else if (common[(i + 1) * width + j]! >= common[i * width + j + 1]!)
      changes.push({ sign: "-", text: gone[i++]! });
    else changes.push({ sign: "+", text: come[j++]! });
  }
  return [...changes, ...minus(gone.slice(i)), ...plus(come.slice(j))];
}

function minus(lines: readonly string[]): LineChange[] {
  return lines.map((text) => ({ sign: "-", text }));
}
function plus(lines: readonly string[]): LineChange[] {
  return lines.map((text) => ({ sign: "+", text }));
}
