import { Chunk } from "./bytes.ts";
import type { RequestEncoder, ResponseDecoder } from "./codec.ts";
import type { SetupContext } from "./extension.ts";
import { FetchError, type FetchResponse } from "./fetch.ts";
import { type HeaderMap, headerName, type RequestHeaders } from "./headers.ts";

/** Who has made the call: hears of the answer as from a codec. */
interface Caller extends ResponseDecoder {
  onFetchFailed(error: FetchError, timeoutMs: number): void;
}

const GRPC_STATUS = headerName("grpc-status");
/** The longest that core lets a sandbox's fetch take. */
const LONGEST_MS = 600_000;
/** Unsent bytes past which the caller is asked to wait. */
const BUFFER_BYTES = 64 * 1024;

/** A gRPC call out of a sandbox, which has no connections: the exchange is a fetch, with bodies that stream both ways. */
export class FetchedCall implements RequestEncoder {
  readonly #caller: Caller;
  readonly #timeoutMs: number;
  readonly #controller = new AbortController();
  readonly #unsent: Uint8Array[] = [];
  #unsentSize = 0;
  #blocked = false;
  #ended = false;
  #over = false;
  #wakeSender: () => void = nothing;
  #paused = false;
  #wakeReader: () => void = nothing;

  constructor(
    cx: Pick<SetupContext, "fetch">,
    target: string,
    { head, timeoutMs = LONGEST_MS }: { head: RequestHeaders; timeoutMs: number | undefined },
    caller: Caller,
  ) {
    this.#caller = caller;
    this.#timeoutMs = timeoutMs;
    void this.#run(cx, target, head);
  }

  // ---- from the caller

  /** The fetch has the head already. */
  encodeHeaders(): void {}

  /** The bytes are kept. */
  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#ended = endStream;
    if (end > at) this.#unsent.push(memory.subarray(at, end));
    this.#unsentSize += end - at;
    if (this.#unsentSize > BUFFER_BYTES && !this.#blocked && !endStream) this.#block(true);
    this.#wakeSender();
  }

  /** A gRPC request has none. */
  encodeTrailers(_trailers: HeaderMap): void {
    this.encodeBody(NOTHING, 0, 0, true);
  }

  reset(): void {
    this.#finish();
    this.#controller.abort();
  }

  pauseReading(paused: boolean): void {
    this.#paused = paused;
    if (!paused) this.#wakeReader();
  }

  // ---- the fetch

  async #run(cx: Pick<SetupContext, "fetch">, target: string, head: RequestHeaders): Promise<void> {
    // A caller that sends its only message and the end at once needs no stream.
    await undefined;
    if (this.#over) return;
    const isWhole = this.#ended && this.#unsent.length === 1;
    try {
      const response = await cx.fetch(target, {
        method: head.method,
        headers: [...head],
        body: isWhole ? this.#unsent[0]! : this.#body(),
        timeoutMs: this.#timeoutMs,
        signal: this.#controller.signal,
      });
      await this.#read(response);
    } catch (error) {
      // Anything else is the filter's own, out of what it does with a message.
      if (!(error instanceof FetchError)) {
        this.reset();
        throw error;
      }
      if (this.#over) return;
      this.#finish();
      this.#caller.onFetchFailed(error, this.#timeoutMs);
    }
  }

  async *#body(): AsyncGenerator<Uint8Array> {
    while (!this.#over) {
      const part = this.#unsent.shift();
      if (part !== undefined) {
        yield part;
        this.#unsentSize -= part.length;
        if (this.#blocked && this.#unsentSize <= BUFFER_BYTES / 2 && !this.#over)
          this.#block(false);
      } else if (this.#ended) return;
      else
        await new Promise<void>((resolve) => {
          this.#wakeSender = resolve;
        });
    }
  }

  #finish(): void {
    this.#over = true;
    this.#wakeSender();
    this.#wakeReader();
  }

  #block(blocked: boolean): void {
    this.#blocked = blocked;
    this.#caller.onUpstreamBlocked(blocked);
  }

  async #read(response: FetchResponse): Promise<void> {
    const caller = this.#caller;
    if (this.#over) return;
    caller.responseHeaders.status = response.status;
    for (const [name, value] of response.headers) caller.responseHeaders.append(name, value);
    if (response.headers.has(GRPC_STATUS)) {
      // There is nothing behind it.
      this.#finish();
      response.cancel();
      caller.onResponseHeaders(true);
      return;
    }
    caller.onResponseHeaders(false);
    for await (const part of response.body) {
      if (this.#over) return;
      caller.onResponseBody(new Chunk(part, 0, part.length), false);
      while (this.#paused && !this.#over)
        await new Promise<void>((resolve) => {
          this.#wakeReader = resolve;
        });
      if (this.#over) return;
    }
    if (this.#over) return;
    this.#finish();
    if (response.trailers === undefined) caller.onResponseBody(new Chunk(NOTHING, 0, 0), true);
    else caller.onResponseTrailers(response.trailers);
  }
}

const NOTHING = new Uint8Array(0);
function nothing(): void {}
