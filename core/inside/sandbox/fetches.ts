import {
  FetchError,
  type FetchInit,
  type FetchResponse,
  latin1Decode,
  latin1Encode,
  ResponseHeaders,
  type Timer,
  utf8Decode,
  utf8Encode,
} from "@tsproxy/sdk";

/** Fetches of one sandbox that may be under way. */
const CALLS_MAX = 256;
/** Of a request, as JSON; it lies in the sandbox's small block. */
const REQUEST_MAX = 32 * 1024;
const TIMEOUT_MS = 15_000;
/** How much longer the sandbox waits than the fetch itself: for an answer that got lost. */
const PATIENCE_MS = 2000;

/** A fetch on its way out. Bytes are strings of one char each. */
export interface FetchCall {
  readonly call: number;
  readonly target: string;
  readonly method: string;
  readonly headers: readonly (readonly [string, string])[];
  readonly body: string | undefined;
  readonly timeoutMs: number;
  readonly maxBytes: number | undefined;
}

/** Its answer, or what became of it. */
export type FetchAnswer =
  | {
      readonly call: number;
      readonly status: number;
      readonly headers: readonly (readonly [string, string])[];
      readonly body: string;
    }
  | { readonly call: number; readonly reason: FetchError["reason"]; readonly message: string };

interface Waiting {
  readonly timer: Timer;
  resolve(response: FetchResponse): void;
  reject(error: FetchError): void;
}

/** The sandbox's half of `cx.fetch`: calls cross as text, and answers come back in a later crossing. */
export class Fetches {
  readonly #tell: (call: FetchCall) => void;
  readonly #timer: (onFired: () => void) => Timer;
  readonly #waiting = new Map<number, Waiting>();
  #next = 1;

  constructor(tell: (call: FetchCall) => void, timer: (onFired: () => void) => Timer) {
    this.#tell = tell;
    this.#timer = timer;
  }

  async start(target: string, init: FetchInit = {}): Promise<FetchResponse> {
    const { method = "GET", timeoutMs = TIMEOUT_MS, maxBytes } = init;
    const given = init.headers ?? [];
    const headers = (Array.isArray(given) ? given : Object.entries(given)) as FetchCall["headers"];
    const body = init.body === undefined ? undefined : await bytesOf(init.body);
    if (this.#waiting.size >= CALLS_MAX)
      throw new FetchError("overflow", `${CALLS_MAX} fetches are under way already`);
    const call = this.#next++;
    const told = { call, target: String(target), method, headers, body, timeoutMs, maxBytes };
    if (JSON.stringify(told).length > REQUEST_MAX)
      throw new FetchError(
        "too_large",
        `a request out of a sandbox is ${REQUEST_MAX} bytes at most`,
      );
    return new Promise((resolve, reject) => {
      const timer = this.#timer(() => {
        this.#waiting.delete(call);
        reject(new FetchError("timeout", `no answer within ${timeoutMs} ms`));
      });
      timer.arm(timeoutMs + PATIENCE_MS);
      this.#waiting.set(call, { timer, resolve, reject });
      this.#tell(told);
    });
  }

  onAnswer(answer: FetchAnswer): void {
    const waiting = this.#waiting.get(answer.call);
    if (waiting === undefined) return;
    this.#waiting.delete(answer.call);
    waiting.timer.cancel();
    if ("reason" in answer) waiting.reject(new FetchError(answer.reason, answer.message));
    else waiting.resolve(new WholeResponse(answer.status, answer.headers, answer.body));
  }
}

async function bytesOf(body: NonNullable<FetchInit["body"]>): Promise<string> {
  const latin1 = (part: string | Uint8Array): string => {
    const bytes = typeof part === "string" ? utf8Encode(part) : part;
    return latin1Decode(bytes, 0, bytes.length);
  };
  if (typeof body === "string" || body instanceof Uint8Array) return latin1(body);
  let all = "";
  for await (const part of body) {
    all += latin1(part);
    if (all.length > REQUEST_MAX) break;
  }
  return all;
}

/** An answer that is there as a whole. */
class WholeResponse implements FetchResponse {
  readonly status: number;
  readonly headers = new ResponseHeaders();
  readonly #bytes: Uint8Array;

  constructor(status: number, headers: readonly (readonly [string, string])[], body: string) {
    this.status = status;
    this.headers.status = status;
    for (const [name, value] of headers) this.headers.append(name, value);
    this.#bytes = latin1Encode(body);
  }

  get ok(): boolean {
    return this.status >= 200 && this.status < 300;
  }
  get body(): AsyncIterable<Uint8Array> {
    const bytes = this.#bytes;
    return {
      async *[Symbol.asyncIterator]() {
        if (bytes.length > 0) yield bytes;
      },
    };
  }
  async bytes(): Promise<Uint8Array> {
    return this.#bytes;
  }
  async text(): Promise<string> {
    return utf8Decode(this.#bytes, 0, this.#bytes.length);
  }
  async json(): Promise<unknown> {
    return JSON.parse(await this.text());
  }
  cancel(): void {}
}
