import {
  type FetchBody,
  type FetchContext,
  FetchError,
  type FetchResponse,
  type FetchSignal,
  fetchFrom,
  latin1Decode,
} from "@tsproxy/sdk";
import { ascii } from "./parked-facts.ts";
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
/** JSON of a response's head. */
const HEAD_MAX = 96 * 1024;

/** JSON in ASCII of a FetchReply, and bytes of one char each. */
export type TellFetched = (head: string, bytes: string) => void;

/** The fetches of one sandbox, carried out here; nothing of what it says is believed. */
export class SandboxFetches {
  readonly #cx: FetchContext;
  readonly #tell: TellFetched;
  readonly #relays = new Map<number, Relay>();

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
      relay = new Relay(this.#cx, call, this.#tell, () => this.#relays.delete(call));
      this.#relays.set(call, relay);
    }
    relay.onMessage(message, bytes);
  }

  /** The sandbox is gone. */
  cancel(): void {
    for (const relay of [...this.#relays.values()]) relay.cancel();
    this.#relays.clear();
  }
}

class Relay {
  readonly #cx: FetchContext;
  readonly #call: number;
  readonly #tell: TellFetched;
  readonly #onOver: () => void;
  readonly #signal = new Signal();
  #begun = false;
  /** Of the request's body. */
  #parts: Uint8Array[] = [];
  #size = 0;
  #ended = false;
  #wakeSender: () => void = () => {};
  /** Of the response's. */
  #credit = CREDIT;
  #wakeReader: () => void = () => {};
  #over = false;

  constructor(cx: FetchContext, call: number, tell: TellFetched, onOver: () => void) {
    this.#cx = cx;
    this.#call = call;
    this.#tell = tell;
    this.#onOver = onOver;
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
        if (message.n > 0 && message.n <= CREDIT * 2) this.#credit += message.n;
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

  #take(bytes: Uint8Array): void {
    this.#parts.push(bytes);
    this.#size += bytes.length;
    const isTooMuch = this.#begun ? this.#parts.length > PARTS_AHEAD : this.#size > WHOLE_BODY_MAX;
    if (isTooMuch) this.cancel();
    else this.#wakeSender();
  }

  async #run(message: FetchMessage & { op: "begin" }, last: Uint8Array): Promise<void> {
    this.#begun = true;
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
      });
      await this.#read(response);
      this.#reply({ to: "fetch", call: this.#call, op: "end" });
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
        this.#reply({ to: "fetch", call: this.#call, op: "sent" });
      } else if (this.#ended || this.#over) return;
      else
        await new Promise<void>((resolve) => {
          this.#wakeSender = resolve;
        });
    }
  }

  async #read(response: FetchResponse): Promise<void> {
    const { status, headers } = response;
    const call = this.#call;
    const lines = [...headers];
    if (JSON.stringify(lines).length > HEAD_MAX) {
      response.cancel();
      throw new FetchError("too_large", "the response's head is too large for a sandbox");
    }
    this.#reply({ to: "fetch", call, op: "head", status, headers: lines });
    for await (const chunk of response.body) {
      for (let at = 0; at < chunk.length; ) {
        while (this.#credit <= 0 && !this.#over)
          await new Promise<void>((resolve) => {
            this.#wakeReader = resolve;
          });
        if (this.#over) return;
        const end = Math.min(chunk.length, at + PART_SIZE);
        this.#credit -= end - at;
        this.#reply({ to: "fetch", call, op: "data" }, latin1Decode(chunk, at, end));
        at = end;
      }
    }
  }

  #reply(reply: FetchReply, bytes = ""): void {
    if (!this.#over) this.#tell(ascii(JSON.stringify(reply)), bytes);
  }

  #finish(): void {
    this.#over = true;
    this.#onOver();
    this.#wakeSender();
    this.#wakeReader();
  }
}

class Signal implements FetchSignal {
  aborted = false;
  #listener: () => void = () => {};

  addEventListener(_type: "abort", listener: () => void): void {
    this.#listener = listener;
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
