// Hot path: one a request, kept with its RoutedRequest.
import {
  type BalancerContext,
  type Chunk,
  type CloseEvent,
  type Cluster,
  type Connection,
  type DecodeError,
  type HeaderMap,
  type Host,
  type PoolCallbacks,
  type PoolFailure,
  type PoolHandle,
  type RequestEncoder,
  type ResetReason,
  type ResponseDecoder,
  ResponseHeaders,
} from "@tsproxy/sdk";

const NOTHING_TO_HASH: BalancerContext = {};

/** Who is told how an attempt goes. */
export interface AttemptOwner {
  onReady(encoder: RequestEncoder, host: Host, connection: Connection): void;
  onNoConnection(failure: PoolFailure): void;
  onInformational(headers: ResponseHeaders): void;
  onHead(headers: ResponseHeaders, endStream: boolean): void;
  onBody(chunk: Chunk, endStream: boolean): void;
  onTrailers(trailers: HeaderMap): void;
  onMalformed(): void;
  onCut(reason: ResetReason): void;
  onFull(full: boolean): void;
}

/**
 * One exchange with one host of a cluster, from the wait for a connection to the end of the response.
 *
 *   begin ──> waits (`#handle`) ──> runs (`encoder`) ──> over
 */
export class Attempt implements PoolCallbacks, ResponseDecoder {
  readonly responseHeaders = new ResponseHeaders();
  /** There while the exchange runs. */
  encoder: RequestEncoder | undefined = undefined;
  host: Host | undefined = undefined;
  waiting = false;
  readonly #owner: AttemptOwner;
  #handle: PoolHandle | undefined = undefined;

  constructor(owner: AttemptOwner) {
    this.#owner = owner;
  }

  get decoder(): ResponseDecoder {
    return this;
  }

  /** True: it waits. False: the owner has been told already, and may be elsewhere by now. */
  begin(cluster: Cluster): boolean {
    this.host = undefined;
    this.waiting = true;
    const handle = cluster.newStream(this, NOTHING_TO_HASH);
    if (handle === undefined) return false;
    this.#handle = handle;
    return true;
  }

  /** Both halves are complete: the codec takes the connection back by itself. */
  complete(): void {
    this.encoder = undefined;
  }

  /** No call to the owner follows. */
  giveUp(): void {
    const handle = this.#handle;
    const encoder = this.encoder;
    this.#over();
    handle?.cancel();
    encoder?.reset();
  }

  #over(): void {
    this.waiting = false;
    this.#handle = undefined;
    this.encoder = undefined;
  }

  onPoolReady(encoder: RequestEncoder, host: Host, connection: Connection): void {
    this.waiting = false;
    this.#handle = undefined;
    this.encoder = encoder;
    this.host = host;
    this.#owner.onReady(encoder, host, connection);
  }

  onPoolFailure(failure: PoolFailure): void {
    this.#over();
    this.#owner.onNoConnection(failure);
  }

  onInformational(headers: ResponseHeaders): void {
    this.#owner.onInformational(headers);
  }

  onResponseHeaders(endStream: boolean): void {
    this.#owner.onHead(this.responseHeaders, endStream);
  }

  onResponseBody(chunk: Chunk, endStream: boolean): void {
    this.#owner.onBody(chunk, endStream);
  }

  onResponseTrailers(trailers: HeaderMap): void {
    this.#owner.onTrailers(trailers);
  }

  onDecodeError(_error: DecodeError): void {
    this.#over();
    this.#owner.onMalformed();
  }

  onUpstreamReset(reason: ResetReason, _event: CloseEvent | undefined): void {
    this.#over();
    this.#owner.onCut(reason);
  }

  onUpstreamBlocked(blocked: boolean): void {
    this.#owner.onFull(blocked);
  }
}
