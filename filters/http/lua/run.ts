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
import type { Script, Settings } from "./script.ts";

/** Thrown by `respond()` to end the script. */
export class Answered extends Stopped {
  constructor() {
    super("answered");
  }
}

/** What a suspended script waits for. */
class BodyWait extends HostWait {}
class ChunkWait extends HostWait {}
class TrailersWait extends HostWait {}
class PromiseWait extends HostWait {
  readonly promise: Promise<unknown>;
  /** In Envoy this call does not suspend the script, so the objects that the script holds stay valid. */
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
    // The message of a LateError names no place in the script: runtimeError() puts the place of the waiting call before it.
    throw error instanceof LateError ? runtimeError(String(error.value)) : error;
  }
}

/** Suspends the script until the promise settles. `isQuiet`: Envoy would not suspend it here, so its objects stay valid. */
export function waitFor(
  promise: Promise<unknown>,
  isQuiet = false,
): Generator<unknown, unknown, unknown> {
  return waitOn(new PromiseWait(promise, isQuiet));
}

/** Most bytes that `setBytes()` sets. */
const SET_MAX = 8 * 1024 * 1024;
function checkSize(size: number): void {
  if (size > SET_MAX) throw libraryError(`setBytes() of more than ${SET_MAX} bytes`);
}
const NO_BYTES = new Uint8Array(0);
const CONTENT_LENGTH = headerName("content-length");

/** What the two runs of a stream have in common. */
export interface RunOwner {
  readonly script: Script;
  readonly settings: Settings;
  readonly stream: HttpStream;
  /** `filter_context` of the route's config. */
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
  /** Scope of all objects that the script is handed: as in Envoy it ends at each wait, and at the latest with the run. */
  declare scope: Scope;
  readonly owner: RunOwner;
  readonly isResponse: boolean;
  readonly #headers: HeaderMap;
  /** The local reply that `respond()` has made. */
  answer: Reply | undefined = undefined;
  headersEdited = false;
  /** The head has been forwarded and can no longer be edited. */
  headersGone = false;
  #isOver = false;
  #waiting: HostWait | undefined = undefined;
  #generator: Generator<unknown, unknown, unknown> | undefined = undefined;
  #headersData: HeadersData | undefined = undefined;
  #requestData: HeadersData | undefined = undefined;
  #kept: Map<string, Userdata> | undefined = undefined;
  #body: BufferData | undefined = undefined;
  /** The body that `body(true)` has made for a message without one. */
  #added: Chunk | undefined = undefined;
  #bodySeen = false;
  #wholeBody = false;
  /** As in Envoy, HTTP/1 reports the end of a body after its last bytes, so the script still gets an empty chunk. */
  #endsApart = false;
  /** That empty chunk, which `setBytes()` may fill. */
  #end: Chunk | undefined = undefined;
  /** Whether the head is forwarded with its content-length, so later chunks keep their lengths; undefined: no chunk has come. */
  #lengthIsSent: boolean | undefined = undefined;
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
    this.owner.settings.executions.inc();
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
      return hold({ body: "buffer", max: 0, trailers });
    }
    this.#letGo();
    // The head waits for the first chunk: if `setBytes()` changes its length, core corrects or removes the content-length.
    if (waiting === CHUNK && this.#mayChangeLength) return hold({ body: "stream" });
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
      // As in Envoy, `body()` returns nil if the trailers directly follow the head.
      if (chunk.length > 0 || endStream) data = this.#body = this.#wrap(chunk);
      this.#resume(data);
    } else if (waiting === CHUNK) {
      data = this.#wrapPart(chunk);
      this.#endsApart = endStream && chunk.length > 0 && this.#isHttp1;
      this.#ended = endStream && !this.#endsApart;
      this.#resume(data);
    }
    return this.#onMore(chunk, data, endStream);
  }

  #onMore(chunk: Chunk, data: BufferData | undefined, endStream: boolean): HookResult {
    if (this.answer !== undefined) return this.answer;
    // If the script waits in a call when the body ends, no empty chunk follows the one that the script has.
    if (this.#waiting instanceof PromiseWait && !this.#waiting.isQuiet) {
      this.#ended ||= this.#endsApart;
      this.#endsApart = false;
    }
    if (this.#endsApart && !(this.#waiting instanceof PromiseWait)) {
      this.#endsApart = false;
      this.#ended = true;
      this.#end = new Chunk(NO_BYTES, 0, 0);
      if (this.#waiting === CHUNK) this.#resume(this.#wrapPart(this.#end));
    }
    if (endStream && this.#waiting === CHUNK) this.#resume(undefined);
    if (endStream && this.#waiting === TRAILERS) this.#resume(undefined);
    const waiting = this.#waiting;
    if (waiting instanceof PromiseWait)
      return this.#settled(waiting, () => this.#onMore(chunk, data, endStream));
    data?.release();
    if (this.#end !== undefined && this.#end.length > 0) chunk.replace(joined(chunk, this.#end));
    this.#end = undefined;
    if (endStream || !this.#wholeBody || !this.#holdsTrailers) this.#letGo();
    return this.answer;
  }

  get #isHttp1(): boolean {
    const { protocol, upstreamProtocol } = this.stream.info;
    return (this.isResponse ? upstreamProtocol : protocol)?.startsWith("HTTP/1") === true;
  }

  /** Marks the head as forwarded; if the script has edited a request's head, its route is chosen anew. */
  #letGo(): void {
    if (this.headersGone) return;
    this.headersGone = true;
    if (!this.isResponse && this.headersEdited && this.owner.settings.clearsRoute)
      this.stream.clearRoute();
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
      if (this.scope.isOver) this.scope = new Scope();
      this.#resume(new HeadersData(this.#trailers, this));
    }
    const waiting = this.#waiting;
    if (waiting instanceof PromiseWait) return this.#settled(waiting, () => this.#onTrailers());
    this.#letGo();
    return this.answer;
  }

  /** Whether the head is held until the trailers: a script that may wait for them can edit the head until they arrive. */
  get #holdsTrailers(): boolean {
    return this.script.uses("trailers");
  }

  /** Called when the stream ends: a script that still waits is never resumed. */
  end(): void {
    this.#over();
    this.#body = undefined;
  }

  // ---- waiting and resuming

  /** Resumes the script when the promise settles, then calls `goOn`. Not `async`, for memory: thousands of runs may wait here. */
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
      // Envoy's body() waits for the trailers too, so there trailers() does not suspend the script any more.
      const isQuiet =
        step.value instanceof PromiseWait
          ? step.value.isQuiet
          : step.value === TRAILERS && this.#wholeBody;
      if (!isQuiet) this.scope.isOver = true;
    } else throw refused("script performed an unexpected yield");
  }

  #fail(error: unknown): void {
    // The stream goes on as the script has left it.
    if (!(error instanceof Answered)) {
      this.owner.settings.errors.inc();
      this.script.tell(error);
    }
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

  /** `handle:requestHeaders()`: the request's head, which the response's run can read too. */
  requestHeadersData(): HeadersData {
    if (!this.isResponse) return this.headersData();
    if (this.#requestData?.scope !== this.scope)
      this.#requestData = new HeadersData(this.stream.request, this);
    return this.#requestData;
  }

  /** Returns the object kept under `key`; makes one if its scope is over. As in Envoy there is one object per kind at a time. */
  kept<T extends Userdata>(key: string, make: () => T): T {
    const kept = (this.#kept ??= new Map());
    const found = kept.get(key);
    if (found?.scope === this.scope) return found as T;
    const made = make();
    kept.set(key, made);
    return made;
  }

  /** Makes an object that was kept across a wait valid in the current scope. */
  #lent<T extends Userdata>(data: T): T {
    data.scope = this.scope;
    return data;
  }

  body(alwaysWrap: boolean): unknown {
    if (this.#wholeBody) return this.#body && this.#lent(this.#body);
    if (this.#ended) {
      if (this.#bodySeen) throw libraryError("cannot call body() after body has been streamed");
      if (!alwaysWrap) return NONE;
      if (this.#body === undefined) {
        this.#added = new Chunk(NO_BYTES, 0, 0);
        this.#body = this.#wrap(this.#added);
      }
      return this.#lent(this.#body);
    }
    if (this.#bodySeen) throw libraryError("cannot call body() after body streaming has started");
    return waitOn(BODY);
  }

  /** Wraps the whole body. As in Envoy, `setBytes()` sets content-length, even if the message came without one. */
  #wrap(chunk: Chunk): BufferData {
    return new BufferData(this.script.tables.body, chunk, (size) => {
      checkSize(size);
      if (!this.#mayHaveBody())
        throw libraryError("setBytes() of a message that cannot have a body");
      if (!this.headersGone) this.#headers.set(CONTENT_LENGTH, String(size));
    });
  }

  get #mayChangeLength(): boolean {
    return this.script.uses("setBytes") && this.#headers.has(CONTENT_LENGTH);
  }

  /** Wraps a chunk. Once the head was forwarded with a content-length, `setBytes()` cannot change a chunk's length. */
  #wrapPart(chunk: Chunk): BufferData {
    const before = chunk.length;
    const isFixed = this.#lengthIsSent;
    const isFirst = isFixed === undefined;
    if (isFirst) this.#lengthIsSent = this.#mayChangeLength;
    return new BufferData(this.script.tables.body, chunk, (size) => {
      checkSize(size);
      if (isFixed === true && size !== before)
        throw libraryError("setBytes() of another length: content-length has been sent");
      if (isFirst) this.#lengthIsSent = this.#mayChangeLength && size === before;
    });
  }

  /** The message has no bytes of body, and will get none. */
  get isEmpty(): boolean {
    if (this.#wholeBody || this.#added !== undefined) return this.#body?.length === 0;
    return this.#ended && !this.#bodySeen;
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

function joined(first: Chunk, second: Chunk): Uint8Array {
  const all = new Uint8Array(first.length + second.length);
  all.set(first.copy());
  all.set(second.copy(), first.length);
  return all;
}
