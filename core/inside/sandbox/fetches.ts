import {
  type FetchBody,
  FetchError,
  FetchedResponse,
  type FetchInit,
  type FetchResponse,
  HeaderMap,
  ResponseHeaders,
  type Timer,
  utf8Encode,
} from "@tsproxy/sdk";
import { PART_SIZE } from "./layout.ts";
import type { Running } from "./running.ts";

/** Most fetches of one sandbox at a time. A Lua script that waits for one takes 6 KiB of the sandbox's 64 MiB. */
export const CALLS_MAX = 10_240;
/** Bytes of a request body given as one value; a body given as an iterable may be of any length. */
export const WHOLE_BODY_MAX = 4 * 1024 * 1024;
/** Chars of a request's head (target, headers, …) in JSON. */
const HEAD_MAX = 32 * 1024;
const TIMEOUT_MS = 15_000;
/** The sandbox waits this much longer than the fetch's own timeout, in case core's reply is lost. */
const PATIENCE_MS = 2000;
const MAX_BYTES = 1024 * 1024;
/** Parts of a streamed request body that may be sent and not yet confirmed. */
export const PARTS_AHEAD = 4;
/** Bytes of a response that core may send ahead of the reader; `read` messages grant further ones. */
export const CREDIT = 64 * 1024;

/** From the sandbox to core, with bytes beside it. A whole body is sent ahead in `data` messages, its last part with `begin`. */
export type FetchMessage = { readonly call: number } & (
  | {
      readonly op: "begin";
      readonly target: string;
      readonly method: string;
      readonly headers: readonly (readonly [string, string])[];
      readonly body: "none" | "whole" | "stream";
      readonly timeoutMs: number;
      /** True: core replies `begun` when it has passed the request to the cluster. */
      readonly asksBegun?: true;
    }
  | { readonly op: "data" | "end" | "cancel" }
  | { readonly op: "read"; readonly n: number }
);
/** From core to the sandbox; the bytes of `data` come beside it. */
export type FetchReply = { readonly to: "fetch"; readonly call: number } & (
  | { readonly op: "begun" | "sent" | "data" }
  | { readonly op: "end"; readonly trailers?: readonly (readonly [string, string])[] }
  | {
      readonly op: "head";
      readonly status: number;
      readonly headers: readonly (readonly [string, string])[];
    }
  | { readonly op: "error"; readonly reason: FetchError["reason"]; readonly message: string }
  /** A reply to this call found no room. */
  | { readonly op: "lost" }
);

/** How messages leave the sandbox. */
interface Way {
  send(message: FetchMessage, bytes: Uint8Array): void;
  /** Bytes of bodies that may still be sent before core has taken earlier ones. */
  readonly room: number;
}

/** The sandbox's half of `cx.fetch` (../fetches.ts is the other): requests go out in parts, replies come in later entries. */
export class Fetches {
  readonly #way: Way;
  readonly #timer: (onFired: () => void) => Timer;
  readonly #running: Running;
  readonly #calls = new Map<number, Call>();
  #next: number;

  constructor(
    way: Way,
    timer: (onFired: () => void) => Timer,
    running: Running,
    firstCall: number,
  ) {
    this.#way = way;
    this.#timer = timer;
    this.#running = running;
    this.#next = firstCall;
  }

  start(target: string, init: FetchInit = {}): Promise<FetchResponse> {
    if (init.signal?.aborted === true)
      return Promise.reject(new FetchError("cancelled", "cancelled by its signal"));
    if (this.#calls.size >= CALLS_MAX)
      return Promise.reject(
        new FetchError("overflow", `${CALLS_MAX} fetches are under way already`),
      );
    const id = this.#next++;
    // An object and not a closure, which would keep the request alive too: thousands of fetches may wait.
    const call = new Call(id, this.#way, this.#timer, this.#calls, this.#running);
    this.#calls.set(id, call);
    call.begin(String(target), init);
    return call.response;
  }

  onReply(reply: FetchReply, bytes: Uint8Array): void {
    const call = this.#calls.get(reply.call);
    if (call === undefined) return;
    this.#running.enter(call.use, call.part);
    call.onReply(reply, bytes);
  }
}

/** One fetch, as the sandbox sees it. */
class Call {
  /** The account that has called. */
  readonly use: number;
  readonly part: number;
  readonly #id: number;
  readonly #way: Way;
  readonly #calls: Map<number, Call>;
  readonly #settle = Promise.withResolvers<FetchResponse>();
  readonly #timer: Timer;
  #onBegun: (() => void) | undefined = undefined;
  #maxBytes = MAX_BYTES;
  #response: FetchedResponse | undefined = undefined;
  #over = false;
  #ahead = 0;
  #wake: () => void = nothing;
  /** Bytes that have come and for which no `read` has been sent, since the reader is paused. */
  #owed = 0;
  #paused = false;
  #signal: FetchInit["signal"] = undefined;
  readonly #onAbort = (): void => this.cancel("cancelled by its signal");

  constructor(
    id: number,
    way: Way,
    timer: (onFired: () => void) => Timer,
    calls: Map<number, Call>,
    { use, part }: Running,
  ) {
    this.use = use;
    this.part = part;
    this.#id = id;
    this.#way = way;
    this.#calls = calls;
    this.#timer = timer(() => this.#fail("timeout", "no answer within the time given"));
  }

  get response(): Promise<FetchResponse> {
    return this.#settle.promise;
  }

  begin(
    target: string,
    { method = "GET", body, timeoutMs = TIMEOUT_MS, ...init }: FetchInit,
  ): void {
    this.#maxBytes = init.maxBytes ?? MAX_BYTES;
    this.#onBegun = init.onBegun;
    const given = init.headers ?? [];
    const headers = (Array.isArray(given) ? given : Object.entries(given)) as [string, string][];
    const whole = wholeOf(body);
    const streamed = whole === undefined ? (body as AsyncIterable<string | Uint8Array>) : undefined;
    const kind = body === undefined ? "none" : streamed === undefined ? "whole" : "stream";
    const head = {
      call: this.#id,
      op: "begin",
      target,
      method,
      headers,
      body: kind,
      timeoutMs,
      ...(init.onBegun !== undefined && { asksBegun: true as const }),
    } as const;
    if (JSON.stringify(head).length > HEAD_MAX) {
      this.#fail("too_large", `a request's head out of a sandbox has ${HEAD_MAX} bytes at most`);
      return;
    }
    if (whole !== undefined && whole.length > WHOLE_BODY_MAX) {
      this.#fail(
        "too_large",
        `more than ${WHOLE_BODY_MAX} bytes at once; give a body that comes in parts`,
      );
      return;
    }
    if (whole !== undefined && whole.length > this.#way.room) {
      this.#fail("overflow", "more bytes at once than may leave a sandbox");
      return;
    }
    this.#timer.arm(timeoutMs + PATIENCE_MS);
    this.#signal = init.signal;
    this.#signal?.addEventListener("abort", this.#onAbort);
    const bytes = whole ?? NOTHING;
    let at = 0;
    for (; bytes.length - at > PART_SIZE; at += PART_SIZE)
      this.#way.send({ call: this.#id, op: "data" }, bytes.subarray(at, at + PART_SIZE));
    this.#way.send(head, bytes.subarray(at));
    if (streamed !== undefined) void this.#sendAll(streamed);
  }

  async #sendAll(body: AsyncIterable<string | Uint8Array>): Promise<void> {
    try {
      for await (const part of body) {
        const bytes = typeof part === "string" ? utf8Encode(part) : part;
        for (let at = 0; at < bytes.length && !this.#over; at += PART_SIZE) {
          this.#way.send({ call: this.#id, op: "data" }, bytes.subarray(at, at + PART_SIZE));
          if (++this.#ahead >= PARTS_AHEAD)
            await new Promise<void>((resolve) => {
              this.#wake = resolve;
            });
        }
        if (this.#over) return;
      }
      if (!this.#over) this.#way.send({ call: this.#id, op: "end" }, NOTHING);
    } catch (error) {
      this.cancel(`its body failed: ${String(error)}`);
    }
  }

  onReply(reply: FetchReply, bytes: Uint8Array): void {
    switch (reply.op) {
      case "begun":
        this.#onBegun?.();
        return;
      case "sent":
        this.#ahead--;
        this.#wake();
        return;
      case "head": {
        const headers = new ResponseHeaders();
        headers.status = reply.status;
        append(headers, reply.headers);
        this.#response = new FetchedResponse(headers, this.#maxBytes, {
          pause: (paused) => this.#pause(paused),
          cancel: () => this.cancel("cancelled by its reader"),
        });
        this.#settle.resolve(this.#response);
        return;
      }
      case "data":
        this.#owed += bytes.length;
        this.#response?.push(bytes);
        if (!this.#paused) this.#ask();
        return;
      case "end":
        this.#finish();
        this.#response?.end(undefined, reply.trailers && append(new HeaderMap(), reply.trailers));
        return;
      case "error":
        this.#fail(reply.reason, reply.message);
        return;
      case "lost":
        this.cancel("more answers at once than the sandbox has room for", "overflow");
    }
  }

  #pause(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#ask();
  }

  #ask(): void {
    if (this.#owed === 0 || this.#over) return;
    this.#way.send({ call: this.#id, op: "read", n: this.#owed }, NOTHING);
    this.#owed = 0;
  }

  cancel(message: string, reason: FetchError["reason"] = "cancelled"): void {
    if (this.#over) return;
    this.#way.send({ call: this.#id, op: "cancel" }, NOTHING);
    this.#fail(reason, message);
  }

  #fail(reason: FetchError["reason"], message: string): void {
    if (this.#over) return;
    this.#finish();
    const error = new FetchError(reason, message);
    if (this.#response === undefined) this.#settle.reject(error);
    else this.#response.end(error);
  }

  #finish(): void {
    this.#over = true;
    // One signal may serve many fetches, and would keep those that are over.
    this.#signal?.removeEventListener("abort", this.#onAbort);
    this.#timer.cancel();
    this.#calls.delete(this.#id);
    this.#wake();
  }
}

const NOTHING = new Uint8Array(0);
function nothing(): void {}

function append(map: HeaderMap, lines: readonly (readonly [string, string])[]): HeaderMap {
  for (const [name, value] of lines) map.append(name, value);
  return map;
}

/** The body as bytes. Undefined: it is an iterable. */
function wholeOf(body: FetchBody | undefined): Uint8Array | undefined {
  if (body === undefined) return NOTHING;
  if (typeof body === "string") return utf8Encode(body);
  return body instanceof Uint8Array ? body : undefined;
}
