import {
  type Clusters,
  type FetchBody,
  type FetchContext,
  FetchError,
  type FetchResponse,
  type FetchSignal,
  fetchFrom,
  type HeaderMap,
  latin1Decode,
} from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import {
  CALLS_MAX,
  CREDIT,
  type FetchMessage,
  type FetchReply,
  PARTS_AHEAD,
  WHOLE_BODY_MAX,
} from "./sandbox/fetches.ts";
import { PART_SIZE } from "./sandbox/layout.ts";

const TIMEOUT_MAX_MS = 600_000;
/** Most chars of a response's headers in JSON, and of its trailers. */
const HEAD_MAX = 96 * 1024;

/** Most bytes of request bodies of one sandbox that wait here to be sent. */
const HELD_MAX = 64 * 1024 * 1024;
/** Most bytes of responses on their way into one sandbox: half of what core keeps for it. */
const UNREAD_MAX = 8 * 1024 * 1024;
/** Milliseconds after which the last parts of a response are taken to have reached the sandbox. */
const ARRIVAL_MS = 100;

/** Sends a FetchReply (JSON in ASCII) with bytes (a Latin-1 string) to the sandbox. */
type TellFetched = (head: string, bytes: string) => void;

/** The clusters that a sandbox may ask. `get` throws a FetchError for those that its manifest does not name. */
export function namedClusters(clusters: Clusters, isNamed: (name: string) => boolean): Clusters {
  return {
    get: (name) => {
      if (isNamed(name)) return clusters.get(name);
      const mend = `add it to "clusters" of its "sandbox"`;
      throw new FetchError("no_cluster", `the manifest names no cluster "${name}"; ${mend}`);
    },
  };
}

/** Carries out the fetches of one sandbox (sandbox/fetches.ts is the other half). Its messages are untrusted. */
export class SandboxFetches {
  readonly #cx: FetchContext;
  readonly #tell: TellFetched;
  readonly #relays = new Map<number, Relay>();
  readonly #budget = new Budget();

  constructor(cx: FetchContext, tell: TellFetched) {
    this.#cx = cx;
    this.#tell = tell;
  }

  /** `text`: JSON of a FetchMessage. */
  onMessage(text: string, bytes: Uint8Array): void {
    const message = JSON.parse(text) as FetchMessage;
    const { call, op } = message;
    if (!Number.isSafeInteger(call)) return;
    let relay = this.#relays.get(call);
    if (relay === undefined) {
      if (op !== "begin" && op !== "data") return;
      if (this.#relays.size >= CALLS_MAX) return;
      const onOver = (): boolean => this.#relays.delete(call);
      relay = new Relay(this.#cx, call, this.#tell, { onOver, budget: this.#budget });
      this.#relays.set(call, relay);
    }
    relay.onMessage(message, bytes);
  }

  /** The sandbox has ended. */
  cancel(): void {
    for (const relay of [...this.#relays.values()]) relay.cancel();
    this.#relays.clear();
  }
}

/** Counts the bytes of all fetches of one sandbox: `held` of requests, `#unread` of responses. */
class Budget {
  held = 0;
  #unread = 0;
  /** Fetches whose responses wait, each once. */
  readonly #waiting = new Set<Relay>();

  get isFull(): boolean {
    return this.#unread >= UNREAD_MAX;
  }

  get isHalfFull(): boolean {
    return this.#unread >= UNREAD_MAX / 2;
  }

  sent(n: number): void {
    this.#unread += n;
  }

  /** The sandbox has read `n` bytes of responses. */
  read(n: number): void {
    this.#unread -= n;
    for (const relay of this.#waiting) {
      if (this.isFull) return;
      this.#waiting.delete(relay);
      relay.readOn();
    }
  }

  /** Calls the fetch's `readOn` once there is room. */
  wait(relay: Relay): void {
    this.#waiting.add(relay);
  }
  leave(relay: Relay): void {
    this.#waiting.delete(relay);
  }
}

/** One fetch. */
class Relay {
  readonly #cx: FetchContext;
  readonly #call: number;
  readonly #tell: TellFetched;
  readonly #onOver: () => void;
  readonly #budget: Budget;
  readonly #signal = new Signal();
  #begun = false;
  /** Parts of the request's body that wait to be sent, and the bytes of all parts so far. */
  #parts: Uint8Array[] = [];
  #size = 0;
  /** Bytes that this fetch holds of the budget. */
  #held = 0;
  #ended = false;
  #wakeSender: () => void = () => {};
  /** Bytes of the response that may still be sent before the sandbox reads. */
  #credit = CREDIT;
  #wakeReader: () => void = () => {};
  #over = false;

  constructor(
    cx: FetchContext,
    call: number,
    tell: TellFetched,
    { onOver, budget }: { readonly onOver: () => void; readonly budget: Budget },
  ) {
    this.#cx = cx;
    this.#call = call;
    this.#tell = tell;
    this.#onOver = onOver;
    this.#budget = budget;
  }

  onMessage(message: FetchMessage, bytes: Uint8Array): void {
    switch (message.op) {
      case "begin":
        if (!this.#begun) void this.#run(message, bytes);
        return;
      case "data":
        this.#take(bytes);
        return;
      case "end":
        this.#ended = true;
        this.#wakeSender();
        return;
      case "read":
        // A sandbox cannot read more than it was sent.
        if (message.n > 0 && message.n <= CREDIT - this.#credit) {
          this.#credit += message.n;
          this.#budget.read(message.n);
        }
        this.#wakeReader();
        return;
      case "cancel":
        this.cancel();
    }
  }

  cancel(): void {
    this.#finish();
    this.#signal.abort();
  }

  /** There may be room for more of the response. */
  readOn(): void {
    this.#wakeReader();
  }

  #take(bytes: Uint8Array): void {
    if (!this.#hold(bytes)) return;
    this.#parts.push(bytes);
    this.#size += bytes.length;
    const isTooMuch = this.#begun ? this.#parts.length > PARTS_AHEAD : this.#size > WHOLE_BODY_MAX;
    if (isTooMuch) this.cancel();
    else this.#wakeSender();
  }

  /** Counts bytes as held. False: the sandbox holds too many; the fetch has been failed. */
  #hold({ length }: Uint8Array): boolean {
    if (this.#budget.held + length > HELD_MAX) {
      const message = `bodies of more than ${HELD_MAX} bytes wait to be sent`;
      this.#reply({ to: "fetch", call: this.#call, op: "error", reason: "overflow", message });
      this.cancel();
      return false;
    }
    this.#budget.held += length;
    this.#held += length;
    return true;
  }

  #release(n: number): void {
    this.#held -= n;
    this.#budget.held -= n;
  }

  async #run(message: FetchMessage & { op: "begin" }, last: Uint8Array): Promise<void> {
    this.#begun = true;
    if (!this.#hold(last)) return;
    const { target, method, headers, body, timeoutMs } = message;
    const given: FetchBody | undefined =
      body === "none"
        ? undefined
        : body === "whole"
          ? joined([...this.#parts.splice(0), last])
          : this.#body();
    try {
      const response = await fetchFrom(this.#cx, String(target), {
        method: String(method),
        headers: Array.isArray(headers) ? headers.map(([n, v]) => [String(n), String(v)]) : [],
        ...(given !== undefined && { body: given }),
        timeoutMs:
          typeof timeoutMs === "number" && timeoutMs >= 0
            ? Math.min(timeoutMs, TIMEOUT_MAX_MS)
            : TIMEOUT_MAX_MS,
        signal: this.#signal,
        ...(message.asksBegun === true && {
          onBegun: () => this.#reply({ to: "fetch", call: this.#call, op: "begun" }),
        }),
      });
      await this.#read(response);
      const trailers = linesOf(response, response.trailers, "trailers are");
      this.#reply({
        to: "fetch",
        call: this.#call,
        op: "end",
        ...(trailers.length > 0 && { trailers }),
      });
    } catch (error) {
      const reason = error instanceof FetchError ? error.reason : "malformed";
      const message = String((error as Error).message);
      this.#reply({ to: "fetch", call: this.#call, op: "error", reason, message });
    }
    this.#finish();
  }

  async *#body(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const part = this.#parts.shift();
      if (part !== undefined) {
        yield part;
        this.#release(part.length);
        this.#reply({ to: "fetch", call: this.#call, op: "sent" });
      } else if (this.#ended || this.#over) return;
      else
        await new Promise<void>((resolve) => {
          this.#wakeSender = resolve;
        });
    }
  }

  async #read(response: FetchResponse): Promise<void> {
    const { status } = response;
    const call = this.#call;
    const headers = linesOf(response, response.headers, "head is");
    this.#reply({ to: "fetch", call, op: "head", status, headers });
    for await (const chunk of response.body) {
      for (let at = 0; at < chunk.length; ) {
        while ((this.#credit <= 0 || this.#budget.isFull) && !this.#over)
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
            if (this.#budget.isFull) this.#budget.wait(this);
          });
        if (this.#over) return;
        const end = Math.min(chunk.length, at + PART_SIZE);
        this.#credit -= end - at;
        this.#budget.sent(end - at);
        this.#reply({ to: "fetch", call, op: "data" }, latin1Decode(chunk, at, end));
        at = end;
      }
    }
  }

  #reply(reply: FetchReply, bytes = ""): void {
    if (!this.#over) this.#tell(ascii(JSON.stringify(reply)), bytes);
  }

  #finish(): void {
    if (this.#over) return;
    this.#over = true;
    this.#release(this.#held);
    this.#budget.leave(this);
    const unread = CREDIT - this.#credit;
    // The sandbox sends no `read` after the end of a response, so the rest is counted as read here.
    if (!this.#budget.isHalfFull) this.#budget.read(unread);
    else this.#cx.timer(() => this.#budget.read(unread)).arm(ARRIVAL_MS);
    this.#onOver();
    this.#wakeSender();
    this.#wakeReader();
  }
}

/** The lines of one of the response's maps, where they are few enough for a sandbox. */
function linesOf(
  response: FetchResponse,
  map: HeaderMap | undefined,
  what: string,
): [name: string, value: string][] {
  const lines = map === undefined ? [] : [...map];
  if (JSON.stringify(lines).length <= HEAD_MAX) return lines;
  response.cancel();
  throw new FetchError("too_large", `the response's ${what} too large for a sandbox`);
}

/** Aborts one fetch. */
class Signal implements FetchSignal {
  aborted = false;
  #listener: () => void = () => {};

  addEventListener(_type: "abort", listener: () => void): void {
    this.#listener = listener;
  }
  removeEventListener(): void {
    this.#listener = () => {};
  }
  abort(): void {
    if (this.aborted) return;
    this.aborted = true;
    this.#listener();
  }
}

function joined(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}
