import {
  type Chunk,
  defineHttpFilter,
  type HookResult,
  type HttpFilter,
  type HttpStream,
  hold,
  type RequestHeaders,
  type ResponseHeaders,
  type StreamPart,
  type Verdict,
} from "@tsproxy/sdk";
import { Config, RouteConfig } from "./config.ts";
import { type Message, ScriptRequest, ScriptResponse } from "./message.ts";
import { Script } from "./script.ts";

/** One direction of a stream: the call of the script's function, and the body that it may wait for. */
class Call {
  readonly #script: Script;
  readonly #message: Message<RequestHeaders> | Message<ResponseHeaders>;
  #result: PromiseLike<Verdict> | undefined = undefined;

  constructor(script: Script, message: Call["message"]) {
    this.#script = script;
    this.#message = message;
  }

  get message(): Message<RequestHeaders> | Message<ResponseHeaders> {
    return this.#message;
  }

  /** Calls the script with the head, which goes on when the function ends, and is held when it asks for the body. */
  begin(run: () => Verdict | PromiseLike<Verdict>): HookResult {
    let result: Verdict | PromiseLike<Verdict>;
    try {
      result = this.#script.call(run);
    } catch (error) {
      throw this.#script.located(error);
    }
    if (!isPromise(result)) return this.#headDone(result);
    const promise = this.#located(result);
    this.#result = promise;
    if (this.#message.needsBody) {
      // What the script throws before the body has come is reported by the body hook.
      promise.catch(() => {});
      return this.#hold();
    }
    return new Promise((resolve, reject) => {
      this.#message.onWanted = () => resolve(this.#hold());
      promise.then((verdict) => resolve(this.#headDone(verdict)), reject);
    });
  }

  #hold() {
    return hold({ body: "buffer", max: this.#script.maxBodyBytes });
  }

  #headDone(verdict: Verdict): Verdict {
    if (verdict !== undefined) return this.#script.verdict(verdict);
    if (this.#message.needsBody) return this.#hold();
    this.#message.send();
    return undefined;
  }

  /** The body, whole if the script wants it. */
  body(chunk: Chunk): HookResult {
    const message = this.#message;
    if (!message.needsBody) return undefined;
    message.deliver(chunk.copy());
    const end = (verdict: Verdict): Verdict => {
      if (message.replacement !== undefined) chunk.replace(message.replacement);
      message.send();
      return verdict;
    };
    return this.#result === undefined ? end(undefined) : this.#result.then(end);
  }

  async #located(promise: PromiseLike<Verdict>): Promise<Verdict> {
    try {
      return this.#script.verdict(await promise);
    } catch (error) {
      throw this.#script.located(error);
    }
  }
}

const isPromise = (value: unknown): value is PromiseLike<Verdict> =>
  typeof (value as PromiseLike<Verdict> | undefined)?.then === "function";

/** A filter with only the hooks that the script needs, so that the others cost nothing. */
function filterFor(script: Script, stream: HttpStream): HttpFilter {
  const { onRequest, onResponse } = script;
  let req: ScriptRequest | undefined;
  const filter: HttpFilter = {};
  if (onRequest !== undefined) {
    let call: Call | undefined;
    filter.onRequestHeaders = (headers, endStream) => {
      const message = new ScriptRequest(headers, !endStream);
      req = message;
      call = new Call(script, message);
      return call.begin(() => onRequest(message, stream));
    };
    // Without a call, another filter object has read the head and has not held it.
    if (script.usesBody) filter.onRequestBody = (chunk) => call?.body(chunk);
  }
  if (onResponse !== undefined) {
    let call: Call | undefined;
    filter.onResponseHeaders = (headers, endStream) => {
      const message = new ScriptResponse(headers, !endStream);
      call = new Call(script, message);
      const request = (req ??= new ScriptRequest(stream.request, false));
      return call.begin(() => onResponse(message, request, stream));
    };
    if (script.usesBody) filter.onResponseBody = (chunk) => call?.body(chunk);
  }
  return filter;
}

/** Parts of a stream that are brought into the sandbox only for scripts whose text names them. */
const PARTS: readonly StreamPart[] = [
  "info",
  "route",
  "metadata",
  "filterState",
  "connectionState",
  "downstreamConnection",
];

export default defineHttpFilter({
  name: "tsproxy.filters.http.script",
  placement: "sandbox",
  sandbox: { shared: true },
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: (config, cx) => new Script(config, cx),
  setup(config, cx) {
    const own = new Script(config, cx);
    const make = (stream: HttpStream) =>
      filterFor((stream.routeConfig as Script | undefined) ?? own, stream);
    const reads = PARTS.filter((part) => own.names(part));
    return Object.assign(make, { reads, stateless: true });
  },
});
