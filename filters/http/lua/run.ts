// Hot path: one for each direction of a stream that has a script (test/bench/cpu.ts lua).
import {
  Chunk,
  type EndResult,
  type HeaderMap,
  type HookResult,
  type HttpStream,
  headerName,
  hold,
  type LastChunk,
  lastChunk,
  type Reply,
  ResponseHeaders,
  type Verdict,
} from "@tsproxy/sdk";
import {
  BufferData,
  HostWait,
  isPending,
  LateError,
  type LuaFunction,
  libraryError,
  NONE,
  refused,
  runtimeError,
  Scope,
  Stopped,
  Userdata,
  wait,
} from "@tsproxy/sdk/lua";
import { HeadersData } from "./headers.ts";
import type { InfoKinds } from "./info.ts";
import type { Script } from "./script.ts";

/** The script has answered the request: it is over. */
export class Answered extends Stopped {
  constructor() {
    super("answered");
  }
}

/** What a script waits for. */
class BodyWait extends HostWait {}
class ChunkWait extends HostWait {}
class TrailersWait extends HostWait {}
class PromiseWait extends HostWait {
  readonly promise: Promise<unknown>;
  /** Envoy does it at once: what the script holds stays good. */
  readonly isQuiet: boolean;

  constructor(promise: Promise<unknown>, isQuiet: boolean) {
    super();
    this.promise = promise;
    this.isQuiet = isQuiet;
  }
}
const BODY = new BodyWait();
const CHUNK = new ChunkWait();
const TRAILERS = new TrailersWait();

function* waitOn(what: HostWait): Generator<unknown, unknown, unknown> {
  try {
    return yield what;
  } catch (error) {
    // What failed elsewhere has no place in the script; here it is where the script waits.
    throw error instanceof LateError ? runtimeError(String(error.value)) : error;
  }
}

/** Suspends the script until the host is done. `isQuiet`: in Envoy it would not be. */
export function waitFor(
  promise: Promise<unknown>,
  isQuiet = false,
): Generator<unknown, unknown, unknown> {
  return waitOn(new PromiseWait(promise, isQuiet));
}

/** A body that `body()` waits for may have so many bytes, as a sandbox's chunk. */
const BODY_MAX = 1024 * 1024;
function checkSize(size: number): void {
  if (size > BODY_MAX) throw refused(`setBytes() of more than ${BODY_MAX} bytes`);
}
const NO_BYTES = new Uint8Array(0);
const CONTENT_LENGTH = headerName("content-length");

/** What the runs of both directions have in common. */
export interface RunOwner {
  readonly script: Script;
  readonly stream: HttpStream;
  /** A route's own. */
  readonly filterContext: unknown;
}

/**
 * One run of a script over one direction of a stream: the `handle` that its function gets, and what it waits for.
 *
 *   running ── body() ──▶ body ── all of it is there ──▶ running
 *           ── bodyChunks() ──▶ chunk ── one is there ──▶ running
 *           ── trailers() ──▶ trailers ── they, or the end, are there ──▶ running
 *           ── httpCall() ──▶ promise ── settled ──▶ running        any error, respond(), the end of the function ──▶ over
 */
export class Run extends Userdata {
  /** Of everything that the script is handed: Envoy's objects survive no wait, and nothing survives its stream. */
  declare scope: Scope;
  readonly owner: RunOwner;
  readonly isResponse: boolean;
  readonly #headers: HeaderMap;
  /** What `respond()` has made. */
  answer: Reply | undefined = undefined;
  headersEdited = false;
  /** The head is no longer this filter's. */
  headersGone = false;
  #isOver = false;
  #waiting: HostWait | undefined = undefined;
  #generator: Generator<unknown, unknown, unknown> | undefined = undefined;
  #headersData: HeadersData | undefined = undefined;
  #requestData: HeadersData | undefined = undefined;
  #kept: Map<string, Userdata> | undefined = undefined;
  #body: BufferData | undefined = undefined;
  /** The body of a message that came without one. */
  #added: Chunk | undefined = undefined;
  #bodySeen = false;
  #wholeBody = false;
  #ended: boolean;
  #trailers: HeaderMap | undefined = undefined;

  constructor(owner: RunOwner, headers: HeaderMap, isResponse: boolean, endStream: boolean) {
    super(owner.script.tables.handle, new Scope());
    this.owner = owner;
    this.isResponse = isResponse;
    this.#headers = headers;
    this.#ended = endStream;
  }

  get script(): Script {
    return this.owner.script;
  }
  get stream(): HttpStream {
    return this.owner.stream;
  }
  get kinds(): InfoKinds {
    return this.script.kinds;
  }
  get isOver(): boolean {
    return this.#isOver;
  }

  // ---- the hooks

  begin(start: LuaFunction): EndResult {
    const { script } = this;
    script.executions.inc();
    script.state.enter();
    try {
      const result = start(this);
      if (!isPending(result)) {
        this.#over();
        return this.#onHead();
      }
      this.#generator = wait(result);
      this.#step(this.#generator.next());
    } catch (error) {
      this.#fail(error);
    }
    return this.#onHead();
  }

  #onHead(): EndResult {
    if (this.answer !== undefined) return this.answer;
    const waiting = this.#waiting;
    if (waiting instanceof PromiseWait) return this.#settled(waiting, () => this.#onHead());
    if (waiting === BODY) {
      const trailers = this.#holdsTrailers;
      return hold({ body: "buffer", max: BODY_MAX, trailers });
    }
    // Chunks of another length than they came with would not be what the head has told.
    if (
      waiting === CHUNK &&
      this.script.state.names.has("setBytes") &&
      this.#headers.has(CONTENT_LENGTH)
    )
      this.#headers.remove(CONTENT_LENGTH);
    this.#letGo();
    const added = this.#added;
    return added === undefined || !this.#mayHaveBody() ? undefined : lastChunk(added.copy());
  }

  onBody(chunk: Chunk, endStream: boolean): HookResult {
    if (this.#isOver) return undefined;
    this.#bodySeen = true;
    this.#ended = endStream;
    const waiting = this.#waiting;
    let data: BufferData | undefined;
    if (waiting === BODY) {
      this.#wholeBody = true;
      data = this.#body = this.#wrap(chunk);
      this.#resume(data);
    } else if (waiting === CHUNK) {
      data = new BufferData(this.script.tables.body, chunk, checkSize);
      this.#resume(data);
    }
    return this.#onMore(data, endStream);
  }

  #onMore(data: BufferData | undefined, endStream: boolean): HookResult {
    if (this.answer !== undefined) return this.answer;
    if (endStream && this.#waiting === CHUNK) this.#resume(undefined);
    if (endStream && this.#waiting === TRAILERS) this.#resume(undefined);
    const waiting = this.#waiting;
    if (waiting instanceof PromiseWait)
      return this.#settled(waiting, () => this.#onMore(data, endStream));
    data?.release();
    if (endStream || !this.#wholeBody || !this.#holdsTrailers) this.#letGo();
    return this.answer;
  }

  /** The head goes on. Where an edited request goes is chosen anew. */
  #letGo(): void {
    if (this.headersGone) return;
    this.headersGone = true;
    if (!this.isResponse && this.headersEdited && this.script.clearsRoute) this.stream.clearRoute();
  }

  onTrailers(trailers: HeaderMap): HookResult {
    if (this.#isOver) return undefined;
    this.#ended = true;
    this.#trailers = trailers;
    return this.#onTrailers();
  }

  #onTrailers(): HookResult {
    if (this.#waiting === CHUNK || this.#waiting === BODY) this.#resume(undefined);
    if (this.#waiting === TRAILERS && this.#trailers !== undefined) {
      this.scope = new Scope();
      this.#resume(new HeadersData(this.#trailers, this));
    }
    const waiting = this.#waiting;
    if (waiting instanceof PromiseWait) return this.#settled(waiting, () => this.#onTrailers());
    this.#letGo();
    return undefined;
  }

  /** Whoever waits for the body and then for trailers may edit the head until these are there. */
  get #holdsTrailers(): boolean {
    return this.script.uses("trailers");
  }

  /** The stream is gone: a script that still waits never goes on. */
  end(): void {
    this.#over();
    this.#body = undefined;
  }

  // ---- going on

  /** Not `async`: thousands of runs may wait here. */
  #settled<V extends Verdict | LastChunk>(
    { promise }: PromiseWait,
    goOn: () => V | PromiseLike<V>,
  ): Promise<V> {
    return promise.then(
      (value) => {
        this.#resume(value);
        return goOn();
      },
      (error) => {
        this.#resume(undefined, { error });
        return goOn();
      },
    );
  }

  #resume(value: unknown, thrown?: { readonly error: unknown }): void {
    const generator = this.#generator;
    if (generator === undefined) return;
    this.#waiting = undefined;
    if (this.scope.isOver) this.scope = new Scope();
    if (value instanceof Userdata) value.scope = this.scope;
    this.script.state.enter();
    try {
      this.#step(thrown === undefined ? generator.next(value) : generator.throw(thrown.error));
    } catch (error) {
      this.#fail(error);
    }
  }

  #step(step: IteratorResult<unknown, unknown>): void {
    if (step.done === true) this.#over();
    else if (step.value instanceof HostWait) {
      this.#waiting = step.value;
      const isQuiet = step.value instanceof PromiseWait && step.value.isQuiet;
      if (!isQuiet) this.scope.isOver = true;
    } else throw refused("script performed an unexpected yield");
  }

  #fail(error: unknown): void {
    if (!(error instanceof Answered)) this.script.failed(error);
    this.#over();
  }

  #over(): void {
    this.#isOver = true;
    this.scope.isOver = true;
    this.#waiting = undefined;
    this.#generator = undefined;
  }

  // ---- for the handle

  headersData(): HeadersData {
    if (this.#headersData?.scope !== this.scope)
      this.#headersData = new HeadersData(this.#headers, this, this);
    return this.#headersData;
  }

  /** The request's head, which a response's script sees as it is. */
  requestHeadersData(): HeadersData {
    if (!this.isResponse) return this.headersData();
    if (this.#requestData?.scope !== this.scope)
      this.#requestData = new HeadersData(this.stream.request, this);
    return this.#requestData;
  }

  /** Envoy hands out one object a kind for as long as it is good. */
  kept<T extends Userdata>(key: string, make: () => T): T {
    const kept = (this.#kept ??= new Map());
    const found = kept.get(key);
    if (found?.scope === this.scope) return found as T;
    const made = make();
    kept.set(key, made);
    return made;
  }

  #lent<T extends Userdata>(data: T): T {
    data.scope = this.scope;
    return data;
  }

  body(alwaysWrap: boolean): unknown {
    if (this.#wholeBody) return this.#body && this.#lent(this.#body);
    if (this.#ended) {
      if (this.#bodySeen) throw refused("cannot call body() after body has been streamed");
      if (!alwaysWrap) return NONE;
      if (this.#body === undefined) {
        this.#added = new Chunk(NO_BYTES, 0, 0);
        this.#body = this.#wrap(this.#added);
      }
      return this.#lent(this.#body);
    }
    if (this.#bodySeen) throw refused("cannot call body() after body streaming has started");
    return waitOn(BODY);
  }

  /** The whole body. As in Envoy, the head tells its length from when it is set, whatever the message came with. */
  #wrap(chunk: Chunk): BufferData {
    return new BufferData(this.script.tables.body, chunk, (size) => {
      checkSize(size);
      if (!this.#mayHaveBody()) throw refused("setBytes() of a message that cannot have a body");
      if (!this.headersGone) this.#headers.set(CONTENT_LENGTH, String(size));
    });
  }

  #mayHaveBody(): boolean {
    const head = this.#headers;
    if (!(head instanceof ResponseHeaders)) return true;
    return head.status !== 204 && head.status !== 304 && this.stream.request.method !== "HEAD";
  }

  beginChunks(): void {
    if (this.#bodySeen)
      throw libraryError("cannot call bodyChunks after body processing has begun");
  }

  nextChunk(): unknown {
    return this.#ended ? NONE : waitOn(CHUNK);
  }

  trailers(): unknown {
    if (this.#trailers !== undefined) return new HeadersData(this.#trailers, this);
    return this.#ended ? NONE : waitOn(TRAILERS);
  }
}
export type Outcome = Verdict;
