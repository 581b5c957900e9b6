import {
  type Chunk,
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  latin1Decode,
  latin1Encode,
  type RequestHeaders,
  ResponseHeaders,
  type SetupContext,
  Type,
  utf8Encode,
} from "@tsproxy/sdk";
import { type Answer, Refused, text } from "./answer.ts";
import { CoreData } from "./core-data.ts";
import { ENDPOINTS, helpText } from "./endpoints.ts";
import { Query } from "./query.ts";

/** Characters of a body that are joined before they are sent. */
const PIECE = 16 * 1024;
/** Most answers in progress. Each may hold a snapshot of all stats while its client is slow. */
const MAX_ANSWERS = 64;
/** Most bytes of a form that are kept; chunks beyond are dropped. */
const MAX_FORM = 64 * 1024;

interface Asked {
  readonly method: string;
  readonly path: string;
  readonly accept: string;
  /** The body of a request that is a form, whose fields are the parameters if there is no query; "" for all others. */
  readonly form: string;
}

/** What all requests to one admin filter share. */
class Admin {
  readonly cx: SetupContext;
  readonly core: CoreData;
  answers = 0;

  constructor(cx: SetupContext) {
    this.cx = cx;
    this.core = new CoreData(cx);
  }

  async answer({ method, path: pathAndQuery, accept, form }: Asked): Promise<Answer> {
    const at = pathAndQuery.indexOf("?");
    const path = at < 0 ? pathAndQuery : pathAndQuery.slice(0, at);
    const endpoint = ENDPOINTS.find((e) => e.path === path);
    if (endpoint === undefined) return text(`invalid path. ${helpText()}`, 404);
    if (endpoint.mutates === true && method !== "POST") {
      return text(`Method ${method} not allowed, POST required.`, 405);
    }
    try {
      const parameters = at < 0 ? "" : pathAndQuery.slice(at + 1);
      const query = new Query(parameters === "" ? form : parameters, accept, this.cx);
      return await endpoint.answer(query, this.core);
    } catch (error) {
      if (error instanceof Refused) return error.answer;
      this.cx.log.error("admin: a page could not be made", { path, error: String(error) });
      return text(`${path} could not be answered: ${String(error)}\n`, 500);
    }
  }
}

/** Answers one admin request, in pieces and no faster than the client takes them. */
class AdminFilter implements HttpFilter {
  readonly #admin: Admin;
  readonly #stream: HttpStream;
  #isForm = false;
  #form = "";
  #started = false;
  #counted = false;
  #ended = false;
  #blocked = false;
  #answer: Answer | undefined = undefined;
  #pieces: Iterator<string> | undefined = undefined;
  /** Pieces that core makes. */
  #awaited: AsyncIterator<string> | undefined = undefined;
  #isAwaiting = false;

  constructor(admin: Admin, stream: HttpStream) {
    this.#admin = admin;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders, endStream: boolean): void {
    const type = headers.get("content-type");
    this.#isForm = type?.startsWith("application/x-www-form-urlencoded") === true;
    if (endStream) this.#start();
  }
  // The fields of a form may stand for a query; any other body is read to its end and dropped.
  onRequestBody(chunk: Chunk, endStream: boolean): void {
    if (this.#isForm && this.#form.length + chunk.length <= MAX_FORM)
      this.#form += latin1Decode(chunk.memory, chunk.at, chunk.end);
    if (endStream) this.#start();
  }
  onRequestTrailers(): void {
    this.#start();
  }

  onResponseBlocked(blocked: boolean): void {
    this.#blocked = blocked;
    if (!blocked) this.#sendMore();
  }
  onReset(): void {
    this.#end();
  }
  onEnd(): void {
    this.#end();
  }

  #start(): void {
    if (this.#started) return;
    this.#started = true;
    const admin = this.#admin;
    if (admin.answers >= MAX_ANSWERS) {
      this.#begin(text("too many admin requests in progress\n", 503));
      return;
    }
    admin.answers++;
    this.#counted = true;
    const { request } = this.#stream;
    const { method, path } = request;
    const accept = request.get("accept") ?? "";
    void admin.answer({ method, path, accept, form: this.#form }).then((answer) => {
      if (this.#ended) answer.after?.();
      else this.#begin(answer);
    });
  }

  #begin(answer: Answer): void {
    this.#answer = answer;
    const headers = new ResponseHeaders();
    headers.status = answer.status;
    headers.append("content-type", answer.contentType);
    headers.append("cache-control", "no-cache, max-age=0");
    headers.append("x-content-type-options", "nosniff");
    const headOnly = this.#stream.request.method === "HEAD";
    const { body } = answer;
    if (Symbol.iterator in body) this.#pieces = body[Symbol.iterator]();
    else this.#awaited = body[Symbol.asyncIterator]();
    this.#stream.responder.sendHeaders(headers, headOnly);
    if (headOnly) this.#end();
    else this.#sendMore();
  }

  #sendMore(): void {
    if (this.#awaited === undefined) this.#send();
    else if (!this.#isAwaiting) void this.#sendAwaited(this.#awaited);
  }

  async #sendAwaited(pieces: AsyncIterator<string>): Promise<void> {
    const { responder } = this.#stream;
    this.#isAwaiting = true;
    try {
      while (!this.#blocked && !this.#ended) {
        const next = await pieces.next();
        if (this.#ended) return;
        const bytes = utf8Encode(next.done === true ? "" : next.value);
        responder.sendBody(bytes, 0, bytes.length, next.done === true);
        if (next.done === true) this.#end();
      }
    } catch {
      // The head has gone out: that the body is not whole can only be told by breaking it off.
      if (!this.#ended) responder.reset("admin_body_broken_off", "-");
    } finally {
      this.#isAwaiting = false;
    }
  }

  #send(): void {
    const pieces = this.#pieces;
    while (pieces !== undefined && this.#pieces === pieces && !this.#blocked) {
      let piece = "";
      let done = false;
      while (piece.length < PIECE && !done) {
        const next = pieces.next();
        if (next.done === true) done = true;
        else piece += next.value;
      }
      const bytes = this.#answer?.isBinary === true ? latin1Encode(piece) : utf8Encode(piece);
      if (done) this.#pieces = undefined;
      this.#stream.responder.sendBody(bytes, 0, bytes.length, done);
      if (done) this.#end();
    }
  }

  /** Called when the answer has been sent, or when the client is gone. */
  #end(): void {
    if (this.#ended) return;
    this.#ended = true;
    if (this.#counted) this.#admin.answers--;
    this.#pieces = undefined;
    this.#awaited = undefined;
    this.#answer?.after?.();
    this.#answer = undefined;
  }
}

export default defineHttpFilter({
  name: "tsproxy.filters.http.admin",
  terminal: true,
  config: Type.Object({}),
  setup(_config, cx) {
    const admin = new Admin(cx);
    return (stream) => new AdminFilter(admin, stream);
  },
});
