import {
  type Chunk,
  type CloseEvent,
  type DecodeError,
  FILTER_FAILED,
  type Generation,
  type HeaderMap,
  type HttpFilter,
  type HttpStream,
  REQUEST_TOO_LARGE,
  RESPONSE_TOO_LARGE,
  type Reply,
  type RequestEncoder,
  type RequestHeaders,
  type ResetReason,
  type ResponseDecoder,
  type ResponseHeaders,
  type UpstreamFilter,
  Walk,
  type WalkOwner,
} from "@tsproxy/sdk";
import { UpstreamView } from "./upstream-view.ts";

const EMPTY = new Uint8Array(0);
/** Reasons why a source of bytes is held back, as bits. WALK: a filter has not decided yet. PEER: the receiver takes no more. */
const BY = { WALK: 1, PEER: 2 } as const;

/** The attempt behind a chain, which gets the response as the filters leave it. */
export interface ChainOwner extends ResponseDecoder {
  /** An upstream filter answers instead of the upstream. */
  onLocalReply(reply: Reply): void;
  onFilterError(error: unknown, filter: string): void;
}

/**
 * One attempt's way through its upstream filters. To the router it is the exchange's encoder, to the exchange it is the decoder.
 *
 *   router ──head, body──► filter 0 ──► … ──► codec ──► host
 *   router ◄──────────────── filter 0 ◄── … ◄── codec ◄── host
 */
export class UpstreamChain implements RequestEncoder, ResponseDecoder {
  readonly #owner: ChainOwner;
  readonly #stream: HttpStream;
  readonly #slots: readonly UpstreamFilter[];
  readonly #request: Walk;
  readonly #answer: Walk;
  readonly #filters: HttpFilter[] = [];
  readonly #live: (HttpFilter | undefined)[] = [];
  readonly #views: UpstreamView[] = [];
  readonly #generations: Generation<unknown>[] = [];
  /** Undefined: there is no connection to the host yet. */
  #encoder: RequestEncoder | undefined = undefined;
  #upgrade = "";
  #begun = false;
  /** The filters were told that the request has no body. */
  #headOnly = false;
  /** The head has passed the filters and waits for the connection; undefined: none waits. */
  #atEnd: RequestHeaders | undefined = undefined;
  #requestEnded = false;
  #responseEnded = false;
  /** The attempt is over: the owner is not called any more. */
  #over = false;
  #blockedBy = 0;
  #pausedBy = 0;

  constructor(owner: ChainOwner, stream: HttpStream, slots: readonly UpstreamFilter[]) {
    this.#owner = owner;
    this.#stream = stream;
    this.#slots = slots;
    const out = new ChainOutlet(this, owner);
    this.#request = new Walk(out, false);
    this.#answer = new Walk(out, true);
  }

  /** Sets the encoder of the host's connection, and returns the chain, which encodes in its place. */
  over(encoder: RequestEncoder): this {
    this.#encoder = encoder;
    return this;
  }

  /** Ends the filters when the attempt is over, however it went. */
  end(): void {
    if (this.#over) return;
    this.#over = true;
    this.#request.stop();
    this.#answer.stop();
    for (const filter of this.#filters) this.#call(() => filter.onEnd?.());
    for (const view of this.#views) view.end();
    for (const generation of this.#generations) generation.release();
  }

  #call(hook: () => void): void {
    try {
      hook();
    } catch (error) {
      this.#owner.onFilterError(error, "");
    }
  }

  // ---- from the router

  get protocol(): NonNullable<RequestEncoder["protocol"]> {
    return this.#encoder?.protocol ?? "HTTP/1.1";
  }
  get wireSent(): number {
    return this.#encoder?.wireSent ?? 0;
  }
  get wireReceived(): number {
    return this.#encoder?.wireReceived ?? 0;
  }
  get headerSent(): number {
    return this.#encoder?.headerSent ?? 0;
  }
  get headerReceived(): number {
    return this.#encoder?.headerReceived ?? 0;
  }
  get fieldsSent(): number | undefined {
    return this.#encoder?.fieldsSent;
  }
  get fieldsReceived(): number | undefined {
    return this.#encoder?.fieldsReceived;
  }

  /** Shows the filters the request head: as in Envoy, before the attempt has its connection if it has to wait for one. */
  begin(headers: RequestHeaders, endStream: boolean): void {
    this.#begun = true;
    this.#headOnly = endStream;
    if (!this.#createFilters()) return;
    this.#request.begin(this.#live);
    this.#answer.begin(this.#live);
    this.#request.head(headers, endStream);
    if (this.#request.waiting) headers.detach();
  }

  encodeHeaders(headers: RequestHeaders, endStream: boolean, upgrade: string): void {
    this.#upgrade = upgrade;
    if (!this.#begun) {
      this.begin(headers, endStream);
      return;
    }
    const head = this.#atEnd;
    this.#atEnd = undefined;
    if (head !== undefined) this.sendHead(head, this.#headOnly);
    // The filters were told of a body, but the request has ended without one.
    if (endStream && !this.#headOnly) this.encodeBody(EMPTY, 0, 0, true);
  }

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#request.body(memory, at, end, endStream);
  }

  encodeTrailers(trailers: HeaderMap): void {
    this.#request.trailers(trailers);
  }

  /** Resets the exchange unless it is complete on both sides: its encoder may serve another request then. */
  reset(): void {
    this.end();
    if (!this.#requestEnded || !this.#responseEnded) this.#encoder?.reset();
  }

  pauseReading(paused: boolean): void {
    this.#pause(BY.PEER, paused);
  }

  #createFilters(): boolean {
    let name = "";
    try {
      for (const slot of this.#slots) {
        name = slot.name;
        const generation = slot.slot.current;
        generation.acquire();
        this.#generations.push(generation);
        const view = new UpstreamView(this.#stream, this, name, generation.value.routes);
        this.#views.push(view);
        this.#filters.push(generation.value(view));
      }
    } catch (error) {
      this.#owner.onFilterError(error, name);
      this.reply(FILTER_FAILED);
      return false;
    }
    this.#live.push(...this.#filters, new ChainEnd(this));
    return true;
  }

  // ---- at the end of the chain: to the host

  /** The response head of the host; undefined: not yet received. */
  response: ResponseHeaders | undefined = undefined;

  sendHead(headers: RequestHeaders, endStream: boolean): void {
    if (this.#encoder === undefined) {
      this.#atEnd = headers;
      return;
    }
    this.#requestEnded = endStream;
    this.#encoder.encodeHeaders(headers, endStream, this.#upgrade);
  }
  /** Only called once there is a connection: the router sends no body before. */
  sendBody({ memory, at, end }: Chunk, endStream: boolean): void {
    this.#requestEnded ||= endStream;
    this.#encoder!.encodeBody(memory, at, end, endStream);
  }
  sendTrailers(trailers: HeaderMap): void {
    this.#requestEnded = true;
    this.#encoder!.encodeTrailers(trailers);
  }

  // ---- from the host

  get responseHeaders(): ResponseHeaders {
    return this.#owner.responseHeaders;
  }

  onInformational(headers: ResponseHeaders): void {
    if (!this.#over) this.#owner.onInformational(headers);
  }

  onResponseHeaders(endStream: boolean): void {
    if (this.#over) return;
    const headers = this.responseHeaders;
    this.#responseEnded = endStream;
    this.response = headers;
    this.#answer.head(headers, endStream);
    // The head lies in memory of this event: copied, as filters may read it later.
    if (!this.#over) headers.detach();
  }

  onResponseBody({ memory, at, end }: Chunk, endStream: boolean): void {
    this.#responseEnded ||= endStream;
    this.#answer.body(memory, at, end, endStream);
  }

  onResponseTrailers(trailers: HeaderMap): void {
    this.#responseEnded = true;
    this.#answer.trailers(trailers);
  }

  onDecodeError(error: DecodeError): void {
    if (!this.#over) this.#owner.onDecodeError(error);
  }

  onUpstreamReset(reason: ResetReason, event: CloseEvent | undefined): void {
    if (!this.#over) this.#owner.onUpstreamReset(reason, event);
  }

  onUpstreamBlocked(blocked: boolean): void {
    this.#block(BY.PEER, blocked);
  }

  // ---- from the walks

  reply(answer: Reply): void {
    if (!this.#over) this.#owner.onLocalReply(answer);
  }

  onFilterError(error: unknown, filter: number): void {
    this.#owner.onFilterError(error, this.#slots[filter]?.name ?? "");
    this.reply(FILTER_FAILED);
  }

  /** Holds back the source of a message (request or response) while a filter has not decided about a part of it. */
  onWaiting(waiting: boolean, response: boolean): void {
    if (response) this.#pause(BY.WALK, waiting);
    else this.#block(BY.WALK, waiting);
  }

  #block(by: number, blocked: boolean): void {
    const before = this.#blockedBy;
    this.#blockedBy = blocked ? before | by : before & ~by;
    if ((before === 0) !== (this.#blockedBy === 0)) this.#owner.onUpstreamBlocked(blocked);
  }

  #pause(by: number, paused: boolean): void {
    const before = this.#pausedBy;
    this.#pausedBy = paused ? before | by : before & ~by;
    if ((before === 0) === (this.#pausedBy === 0) || this.#responseEnded) return;
    this.#encoder?.pauseReading(paused);
  }
}

/** Where both walks end: responses go to the owner, and what filters decide on the way goes to the chain. */
class ChainOutlet implements WalkOwner {
  readonly #chain: UpstreamChain;
  readonly #owner: ChainOwner;

  constructor(chain: UpstreamChain, owner: ChainOwner) {
    this.#chain = chain;
    this.#owner = owner;
  }
  onReply(answer: Reply): void {
    this.#chain.reply(answer);
  }
  onFilterError(error: unknown, filter: number): void {
    this.#chain.onFilterError(error, filter);
  }
  onTooLarge(response: boolean): void {
    this.#chain.reply(response ? RESPONSE_TOO_LARGE : REQUEST_TOO_LARGE);
  }
  onWaiting(waiting: boolean, response: boolean): void {
    this.#chain.onWaiting(waiting, response);
  }
  encodeHead(_headers: ResponseHeaders, endStream: boolean): void {
    this.#owner.onResponseHeaders(endStream);
  }
  encodeBody(chunk: Chunk, endStream: boolean): void {
    this.#owner.onResponseBody(chunk, endStream);
  }
  encodeTrailers(trailers: HeaderMap): void {
    this.#owner.onResponseTrailers(trailers);
  }
}

/** The last filter of the chain: sends the request to the host. */
class ChainEnd implements HttpFilter {
  readonly #chain: UpstreamChain;

  constructor(chain: UpstreamChain) {
    this.#chain = chain;
  }
  onRequestHeaders(headers: RequestHeaders, endStream: boolean): void {
    this.#chain.sendHead(headers, endStream);
  }
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    this.#chain.sendBody(chunk, endStream);
  }
  onRequestTrailers(trailers: HeaderMap): void {
    this.#chain.sendTrailers(trailers);
  }
}
