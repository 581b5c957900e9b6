// Hot path: every stream takes one state for each sandboxed filter (test/bench/sandbox.ts).
import {
  HeaderMap,
  type Hold,
  type HttpFilter,
  type HttpFilterFactory,
  RequestHeaders,
  ResponseHeaders,
} from "@tsproxy/sdk";
import type { SandboxContext } from "./context.ts";
import { Head, type HeadExtras } from "./head.ts";
import type { SandboxStream } from "./stream-view.ts";

/** Most unused states and heads that are kept for later streams. */
export const STATES_KEPT = 1024;

/** One use of an http package: what its setup returned. */
export interface HttpUse {
  readonly id: number;
  readonly factory: HttpFilterFactory;
  readonly cx: SandboxContext;
  /** The headers that the package's manifest lets it write; undefined: all. */
  readonly writes: ReadonlySet<string> | undefined;
}

/** A head and the number of states that use it: adjacent filters of one stream share it. */
interface Shared<M extends HeaderMap> {
  readonly head: Head<M>;
  users: number;
}
const spareRequests: Shared<RequestHeaders>[] = [];
const spareResponses: Shared<ResponseHeaders>[] = [];

function letGo<M extends HeaderMap>(shared: Shared<M>, spare: Shared<M>[]): void {
  if (--shared.users === 0 && spare.length < STATES_KEPT) spare.push(shared);
}

/** An unused request head for a new stream. */
export function takeRequest(): Shared<RequestHeaders> {
  const shared = spareRequests.pop() ?? { head: new Head(new RequestHeaders()), users: 0 };
  shared.users = 1;
  return shared;
}

function takeResponse(): Shared<ResponseHeaders> {
  const shared = spareResponses.pop() ?? { head: new Head(new ResponseHeaders()), users: 0 };
  shared.users = 1;
  return shared;
}

/** What a stream keeps of one lane's body. */
export class BodyState {
  /** The hold that keeps the head back, and the size of the held body once it is known (-1 before). */
  hold: Hold | undefined = undefined;
  heldSize = -1;
  /** PARTs of a long chunk. */
  readonly parts: Uint8Array[] = [];

  reset(): void {
    this.hold = undefined;
    this.heldSize = -1;
    this.parts.length = 0;
  }
}

/** One filter object in one stream, with the heads that it sees. Reused for stream after stream. */
export class StreamState implements HeadExtras {
  /** The stream's token with lane bit 0; 0: unused. */
  token = 0;
  use: HttpUse | undefined = undefined;
  filter: HttpFilter | undefined = undefined;
  stream: SandboxStream | undefined = undefined;
  /** Shared with adjacent filters of the same stream. */
  request: Shared<RequestHeaders> | undefined = undefined;
  response: Shared<ResponseHeaders> | undefined = undefined;
  #trailers: [Head, Head] | undefined = undefined;
  hooks = 0;
  /** A verdict has told the chain of `hooks`. */
  told = false;
  clearRoute = false;
  routeConfig: string | undefined = undefined;
  facts: string | undefined = undefined;
  /** By lane; most streams use none. */
  #bodies: [BodyState, BodyState] | undefined = undefined;
  /** Bit k: the stream has used `#bodies` of lane k. */
  #bodyLanes = 0;

  /** Undefined: that lane's body has neither been held nor come in PARTs. */
  body(lane: number): BodyState | undefined {
    return (this.#bodyLanes & (1 << lane)) === 0 ? undefined : this.#bodies![lane];
  }

  keepBody(lane: number): BodyState {
    this.#bodies ??= [new BodyState(), new BodyState()];
    this.#bodyLanes |= 1 << lane;
    return this.#bodies[lane]!;
  }

  trailers(lane: number): Head {
    this.#trailers ??= [new Head(new HeaderMap()), new Head(new HeaderMap())];
    return this.#trailers[lane]!;
  }

  /** Shares the heads of `leader`, the filter before it in the chain. */
  share({ request, response }: StreamState): void {
    if (this.request !== request && request !== undefined) {
      if (this.request !== undefined) letGo(this.request, spareRequests);
      this.request = request;
      request.users++;
    }
    if (this.response === response || response === undefined) return;
    if (this.response !== undefined) letGo(this.response, spareResponses);
    this.response = response;
    response.users++;
  }

  beginResponse(): void {
    if (this.response !== undefined) letGo(this.response, spareResponses);
    this.response = takeResponse();
  }

  /** Passes the facts that came with the last head on to the stream. */
  learn(): void {
    if (this.facts === undefined) return;
    this.stream!.learn(this.facts);
    this.facts = undefined;
  }

  reset(): void {
    if (this.request !== undefined) letGo(this.request, spareRequests);
    if (this.response !== undefined) letGo(this.response, spareResponses);
    this.request = this.response = undefined;
    this.token = 0;
    this.use = this.filter = this.stream = undefined;
    this.told = this.clearRoute = false;
    this.hooks = 0;
    this.routeConfig = this.facts = undefined;
    this.body(0)?.reset();
    this.body(1)?.reset();
    this.#bodyLanes = 0;
  }
}
