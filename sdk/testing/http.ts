import { Chunk, latin1Decode, latin1Encode } from "../bytes.ts";
import type { Timer } from "../extension.ts";
import { type HeaderMap, RequestHeaders, type ResponseHeaders } from "../headers.ts";
import {
  type DownstreamFacts,
  type EndResult,
  type Hold,
  type HttpFilter,
  type HttpFilterFactory,
  type HttpStream,
  type LastChunk,
  newStreamInfo,
  type Reply,
  type Responder,
  type StreamInfo,
  type Verdict,
} from "../http.ts";
import type { Address } from "../network.ts";
import { HTTP_VERDICTS, NoVerdict } from "../no-verdict.ts";
import type { Route } from "../route.ts";
import { requestHeaders, responseHeaders } from "./codec.ts";
import type { TestContext } from "./context.ts";

const CLIENT: Address = { ip: "192.0.2.1", port: 40_000 };

/** What a TestStream's chain would know: its route, per-route configs, connection. */
export interface TestStreamOptions {
  /** `typed_per_filter_config` of all levels, least specific first; `setupRoute` is called for them. */
  readonly routeConfigs?: readonly unknown[];
  readonly route?: Route;
  readonly info?: Partial<StreamInfo>;
  readonly downstreamConnection?: DownstreamFacts;
}

/** Bytes that a hold with `max: 0` may gather in tests. */
const BODY_LIMIT = 1024 * 1024;

/**
 * One stream through one HTTP filter, with neither proxy nor socket: holds, replies, promises and `done` count as they do in a
 * chain. Hooks that return at once have run when the call returns; a promise is waited for with `settled`.
 */
export class TestStream implements HttpStream {
  readonly id = 1;
  readonly info: StreamInfo;
  request = new RequestHeaders();
  response: ResponseHeaders | undefined = undefined;
  route: Route | undefined;
  readonly metadata = new Map<string, Record<string, unknown>>();
  readonly filterState = new Map<string, unknown>();
  readonly downstreamConnection: DownstreamFacts | undefined;
  readonly connectionState = new Map<string, unknown>();
  readonly filter: HttpFilter;
  /** What came out on the upstream's side. */
  readonly upstream = new TestOutput();
  /** What came out on the client's side; a local reply of the filter is in `reply`. */
  readonly downstream = new TestOutput();
  reply: Reply | undefined = undefined;
  /** What a hook threw or rejected with: the stream would be answered 500. */
  error: unknown = undefined;
  /** More body than `hold` allows: 413 (request) or 500. */
  tooLarge: "request" | "response" | undefined = undefined;
  routeCleared = 0;
  readonly #configs: readonly unknown[];
  readonly #factory: HttpFilterFactory;
  readonly #cx: TestContext;
  readonly #lanes: readonly [Lane, Lane];
  readonly #sleeps: Timer[] = [];
  #done = false;
  #ended = false;

  constructor(cx: TestContext, factory: HttpFilterFactory, options: TestStreamOptions = {}) {
    this.#cx = cx;
    this.#factory = factory;
    this.#configs = options.routeConfigs ?? [];
    this.route = options.route;
    this.downstreamConnection = options.downstreamConnection;
    this.info = testStreamInfo(options.info);
    this.#lanes = [new Lane(this, this.upstream, false), new Lane(this, this.downstream, true)];
    this.filter = factory(this);
  }

  // ---- for the test

  /** A request head; `endStream`: it ends the request, which has no body. */
  requestHeaders(
    method: string,
    path: string,
    headers: Readonly<Record<string, string>> = {},
    endStream = true,
  ): this {
    const lines = Object.entries({ host: "test", ...headers }).flat();
    return this.requestHead(requestHeaders(method, path, ...lines), endStream);
  }
  /** The same with a head made by hand. */
  requestHead(head: RequestHeaders, endStream = true): this {
    this.request = head;
    return this.#push(0, { head, endStream });
  }
  requestBody(text: string, endStream = true): this {
    return this.#push(0, { body: text, endStream });
  }
  /** A body in these chunks; the last one ends the request. */
  requestChunks(chunks: readonly string[]): this {
    if (chunks.length === 0) return this.requestBody("");
    chunks.forEach((text, k) => {
      this.requestBody(text, k === chunks.length - 1);
    });
    return this;
  }
  requestTrailers(trailers: HeaderMap): this {
    return this.#push(0, { trailers, endStream: true });
  }
  responseHeaders(
    status: number,
    headers: Readonly<Record<string, string>> = {},
    endStream = true,
  ): this {
    return this.responseHead(responseHeaders(status, ...Object.entries(headers).flat()), endStream);
  }
  responseHead(head: ResponseHeaders, endStream = true): this {
    this.response = head;
    return this.#push(1, { head, endStream });
  }
  responseBody(text: string, endStream = true): this {
    return this.#push(1, { body: text, endStream });
  }
  responseChunks(chunks: readonly string[]): this {
    if (chunks.length === 0) return this.responseBody("");
    chunks.forEach((text, k) => {
      this.responseBody(text, k === chunks.length - 1);
    });
    return this;
  }
  responseTrailers(trailers: HeaderMap): this {
    return this.#push(1, { trailers, endStream: true });
  }

  /** Whether a promise of a hook is pending. */
  get waiting(): boolean {
    return this.#lanes[0].waiting || this.#lanes[1].waiting;
  }
  /** Lets promises that can settle do so; those that wait for the clock or for a fetch need `advance` or an answer first. */
  async settled(): Promise<this> {
    await this.#cx.turn();
    return this;
  }
  /** Moves the clock on, and lets everything run that has waited for it. */
  async advance(ms: number): Promise<this> {
    // In steps, since a promise that one timer settles may arm the next.
    for (let left = ms; left > 0; left -= 16) {
      this.#cx.clock.advance(Math.min(left, 16));
      await this.settled();
    }
    return this;
  }
  /** Ends the stream, however far it has come: calls `onEnd`, once. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    for (const lane of this.#lanes) lane.stop();
    for (const timer of this.#sleeps) timer.cancel();
    this.filter.onEnd?.();
  }

  #push(lane: 0 | 1, event: Event): this {
    if (!this.#ended) this.#lanes[lane].push(event);
    return this;
  }

  // ---- for the lanes

  hook(event: Event, chunk: Chunk | undefined, response: boolean): EndResult {
    const { filter } = this;
    if (this.#done || this.#ended || this.reply !== undefined) return undefined;
    const { head, trailers, endStream } = event;
    if (head !== undefined)
      return response
        ? filter.onResponseHeaders?.(head as ResponseHeaders, endStream)
        : filter.onRequestHeaders?.(head as RequestHeaders, endStream);
    if (trailers !== undefined)
      return response
        ? filter.onResponseTrailers?.(trailers)
        : filter.onRequestTrailers?.(trailers);
    return response
      ? filter.onResponseBody?.(chunk!, endStream)
      : filter.onRequestBody?.(chunk!, endStream);
  }
  onReply(reply: Reply): void {
    this.reply = reply;
    this.info.responseCodeDetails = reply.details;
    this.info.flags.push(...reply.flags);
    for (const lane of this.#lanes) lane.stop();
    const head = responseHeaders(reply.status);
    for (const [name, value] of reply.headers) head.append(name, value);
    this.response = head;
    // A local reply passes the response hooks, as a response of the upstream does.
    try {
      void this.filter.onResponseHeaders?.(head, reply.body === "");
    } catch (error) {
      this.error = error;
    }
  }
  onDone(): void {
    this.#done = true;
  }
  onError(error: unknown): void {
    this.error = error;
    for (const lane of this.#lanes) lane.stop();
  }
  onTooLarge(response: boolean): void {
    this.tooLarge = response ? "response" : "request";
    for (const lane of this.#lanes) lane.stop();
  }

  // ---- for the filter

  get routeConfigs(): readonly unknown[] {
    return this.#factory.routes?.all(this.#configs) ?? this.#configs;
  }
  get routeConfig(): unknown {
    return this.routeConfigs.at(-1);
  }
  clearRoute(): void {
    this.routeCleared++;
  }
  get responder(): Responder {
    throw new Error("a TestStream drives filters that are not terminal");
  }
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#cx.timer(resolve);
      timer.arm(ms);
      this.#sleeps.push(timer);
    });
  }
}

/** What left the filter in one direction. */
export class TestOutput {
  head: HeaderMap | undefined = undefined;
  /** The head's lines when it left. */
  headers: [string, string][] = [];
  /** One char per byte. */
  body = "";
  /** The body as it was cut. */
  readonly chunks: string[] = [];
  trailers: HeaderMap | undefined = undefined;
  ended = false;

  header(name: string): string | undefined {
    return this.headers.find(([n]) => n === name)?.[1];
  }
}

interface Event {
  /** A whole held body, which goes on only after the hook for its trailers. */
  readonly waits?: boolean;
  readonly head?: HeaderMap;
  readonly body?: string;
  readonly trailers?: HeaderMap;
  readonly endStream: boolean;
}

/** One direction of a stream; events wait while a promise of the filter is pending. */
class Lane {
  waiting = false;
  readonly #stream: TestStream;
  readonly #out: TestOutput;
  readonly #response: boolean;
  readonly #events: Event[] = [];
  #hold: Hold | undefined = undefined;
  #heldHead: Event | undefined = undefined;
  #heldBody = "";
  /** What the body hook left of a whole body that waits for its trailers. */
  #heldChunk = "";
  #stopped = false;

  constructor(stream: TestStream, out: TestOutput, response: boolean) {
    this.#stream = stream;
    this.#out = out;
    this.#response = response;
  }

  push(event: Event): void {
    this.#events.push(event);
    this.#run();
  }

  stop(): void {
    this.#stopped = true;
    this.waiting = false;
    this.#events.length = 0;
  }

  #run(): void {
    while (!this.waiting && !this.#stopped) {
      const event = this.#events.shift();
      if (event === undefined) return;
      this.#step(event);
    }
  }

  #step(event: Event): void {
    let text = event.body ?? "";
    if (this.#hold?.body === "buffer" && event.head === undefined) {
      const ends = event.endStream && event.trailers === undefined;
      const isFree = ends && this.#heldBody === "" && this.#hold.exceptLast;
      this.#heldBody += text;
      if (!isFree && this.#heldBody.length > (this.#hold.max === 0 ? BODY_LIMIT : this.#hold.max)) {
        this.#stream.onTooLarge(this.#response);
        return;
      }
      if (event.trailers !== undefined) {
        // The body has ended without a last chunk.
        const waits = this.#hold.trailers;
        this.#hold = undefined;
        this.#events.unshift({ body: this.#heldBody, endStream: false, waits }, event);
        this.#heldBody = "";
        return;
      }
      if (!ends) return;
      text = this.#heldBody;
      this.#heldBody = "";
      this.#hold = undefined;
    }
    // The memory is lent, as a socket's is: what a filter keeps of it without a copy is overwritten.
    const lent = latin1Encode(`..${text}..`);
    const chunk = event.body === undefined ? undefined : new Chunk(lent, 2, lent.length - 2);
    let result: EndResult;
    try {
      result = this.#stream.hook(event, chunk, this.#response);
    } catch (error) {
      this.#stream.onError(error);
      return;
    }
    if (typeof (result as PromiseLike<unknown> | undefined)?.then !== "function") {
      this.#decide(event, chunk, result as Verdict | LastChunk);
      lent.fill(0x21);
      return;
    }
    chunk?.replace(chunk.copy());
    lent.fill(0x21);
    this.waiting = true;
    (result as PromiseLike<Verdict | LastChunk>).then(
      (verdict) => {
        if (this.#stopped) return;
        this.waiting = false;
        this.#decide(event, chunk, verdict);
        this.#run();
      },
      (error) => {
        if (!this.#stopped) this.#stream.onError(error);
      },
    );
  }

  #decide(event: Event, chunk: Chunk | undefined, verdict: Verdict | LastChunk): void {
    if (verdict?.type === "last_chunk") {
      const { bytes } = verdict;
      if (event.head !== undefined)
        this.#decide({ ...event, endStream: false }, undefined, undefined);
      this.#decide({ endStream: true }, new Chunk(bytes, 0, bytes.length), undefined);
      return;
    }
    if (verdict?.type === "reply") {
      this.#stream.onReply(verdict);
      return;
    }
    if (verdict !== undefined && verdict?.type !== "done" && verdict?.type !== "hold") {
      this.#stream.onError(new NoVerdict(verdict, HTTP_VERDICTS));
      return;
    }
    if (verdict?.type === "done") this.#stream.onDone();
    if (event.head !== undefined) {
      if (verdict?.type === "hold" && !event.endStream) {
        this.#hold = verdict;
        this.#heldHead = event;
      } else this.#forwardHead(event);
      return;
    }
    if (event.waits === true) {
      this.#heldChunk = latin1Decode(chunk!.memory, chunk!.at, chunk!.end);
      return;
    }
    if (this.#heldHead !== undefined) this.#forwardHead(this.#heldHead);
    this.#heldHead = undefined;
    this.#hold = undefined;
    const out = this.#out;
    if (this.#heldChunk !== "") this.#forwardBody(this.#heldChunk);
    this.#heldChunk = "";
    if (chunk !== undefined) this.#forwardBody(latin1Decode(chunk.memory, chunk.at, chunk.end));
    else out.trailers = event.trailers;
    out.ended = event.endStream;
  }

  #forwardBody(text: string): void {
    this.#out.body += text;
    this.#out.chunks.push(text);
  }

  #forwardHead(event: Event): void {
    this.#out.head = event.head;
    this.#out.headers = [...event.head!];
    this.#out.ended = event.endStream;
  }
}

/** The info of a stream that has just begun. */
export const testStreamInfo = (facts: Partial<StreamInfo> = {}): StreamInfo =>
  newStreamInfo({
    connectionId: 1,
    downstreamRemoteAddress: CLIENT,
    downstreamDirectAddress: CLIENT,
    downstreamLocalAddress: { ip: "127.0.0.1", port: 10_000 },
    ...facts,
  });
