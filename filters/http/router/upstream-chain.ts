import {
  type Chunk,
  type CloseEvent,
  type CodecFactory,
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
/** Who keeps a source from going on; bits. */
const BY = { WALK: 1, PEER: 2 } as const;

/** The attempt behind a chain: it gets what filters have made of the exchange. */
export interface ChainOwner extends ResponseDecoder {
  /** A filter answers in the place of the upstream. */
  onLocalReply(reply: Reply): void;
  onFilterError(error: unknown, filter: string): void;
}

/**
 * One attempt's way through upstream filters. To the router it is the exchange, and to the exchange it is the router.
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
  /** Undefined: the host's connection is not there yet. */
  #encoder: RequestEncoder | undefined = undefined;
  #upgrade = "";
  #begun = false;
  /** The filters were told that there is no body. */
  #headOnly = false;
  /** The head has come through the filters, and waits for the connection. */
  #atEnd: RequestHeaders | undefined = undefined;
  #requestEnded = false;
  #responseEnded = false;
  /** The attempt hears nothing more. */
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

  /** The host's connection is there. */
  over(encoder: RequestEncoder): this {
    this.#encoder = encoder;
    return this;
  }

  /** The attempt is over, whatever became of it. */
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

  get protocol(): CodecFactory["protocol"] {
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

  /** The filters see the head: as in Envoy while the attempt still waits for its connection, if it has to. */
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
    // The request has ended since, and nothing came but its end.
    if (endStream && !this.#headOnly) this.encodeBody(EMPTY, 0, 0, true);
  }

  encodeBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#request.body(memory, at, end, endStream);
  }

  encodeTrailers(trailers: HeaderMap): void {
    this.#request.trailers(trailers);
  }

  /** The exchange may be another's once it is complete on both sides. */
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

  /** What came back from the host; undefined: no head yet. */
  response: ResponseHeaders | undefined = undefined;

  sendHead(headers: RequestHeaders, endStream: boolean): void {
    if (this.#encoder === undefined) {
      this.#atEnd = headers;
      return;
    }
    this.#requestEnded = endStream;
    this.#encoder.encodeHeaders(headers, endStream, this.#upgrade);
  }
  /** The router has no body for a chain without a connection. */
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
    // Whoever reads it later than this event needs its bytes.
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

  /** A filter thinks: what it thinks about waits where it comes from. */
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

/** Where walks come out: responses at the router, and what filters say on the way. */
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

/** The last of the chain. */
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
