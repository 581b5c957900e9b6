import {
  Chunk,
  type CloseEvent,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkChain,
  type NetworkFilter,
  type NetworkFilterFactory,
} from "@tsproxy/sdk";
import { BufferData, HostWait, isPending, type LuaFunction, refused, wait } from "@tsproxy/sdk/lua";
import { Config } from "./config.ts";
import { BytesInHand, ConnectionData, PromiseWait, reasonOf } from "./connection.ts";
import { Script } from "./script.ts";

/** A script on one connection. While a hook waits, later events of its direction wait for it; the other direction goes on. */
class LuaFilter {
  readonly #script: Script;
  readonly #data: ConnectionData;
  #over = false;

  constructor(script: Script, connection: DownstreamConnection, chain: NetworkChain) {
    this.#script = script;
    this.#data = new ConnectionData(script, connection, chain);
  }

  connect(): undefined | Promise<void> {
    return this.#run(this.#script.hooks.onNewConnection!, []);
  }
  data(chunk: Chunk, endStream: boolean): undefined | Promise<Uint8Array> {
    return this.#bytes(this.#script.hooks.onData!, chunk, endStream);
  }
  write(chunk: Chunk, endStream: boolean): undefined | Promise<Uint8Array> {
    return this.#bytes(this.#script.hooks.onWrite!, chunk, endStream);
  }

  #bytes(hook: LuaFunction, chunk: Chunk, endStream: boolean): undefined | Promise<Uint8Array> {
    // A copy, since the event's memory is lent until this call returns. Later filters get what the script leaves in the copy.
    const copy = chunk.copy();
    const own = new Chunk(copy, 0, copy.length);
    const buffer = new BufferData(this.#script.tables.buffer, own);
    const hand = new BytesInHand();
    const bytes = (): Uint8Array => (hand.isDropped ? NOTHING : own.memory);
    const waiting = this.#run(hook, [buffer, endStream], hand);
    if (waiting !== undefined) return waiting.then(bytes);
    if (bytes() !== copy) chunk.replace(bytes());
    return undefined;
  }

  close(event: CloseEvent): void {
    const hook = this.#script.hooks.onClose;
    if (hook !== undefined) void this.#run(hook, [reasonOf(event)]);
    this.#over = true;
  }

  /** Calls a hook; undefined: it has ended, else a promise that resolves when it has. Errors are counted and logged. */
  #run(hook: LuaFunction, args: readonly unknown[], hand?: BytesInHand): undefined | Promise<void> {
    const script = this.#script;
    this.#data.inHand = hand;
    script.enter();
    try {
      const result = hook(this.#data, ...args);
      if (!isPending(result)) return undefined;
      const generator = wait(result);
      return this.#goOn(generator, generator.next(), hand);
    } catch (error) {
      script.failed(error);
      return undefined;
    }
  }

  #goOn(
    generator: Generator<unknown, unknown, unknown>,
    step: IteratorResult<unknown, unknown>,
    hand: BytesInHand | undefined,
  ): undefined | Promise<void> {
    if (step.done === true) return undefined;
    const waiting = step.value;
    if (!(waiting instanceof HostWait)) throw refused("script performed an unexpected yield");
    return this.#finish(generator, waiting as PromiseWait, hand);
  }

  async #finish(
    generator: Generator<unknown, unknown, unknown>,
    first: PromiseWait,
    hand: BytesInHand | undefined,
  ): Promise<void> {
    const { state } = this.#script;
    let waiting: unknown = first;
    try {
      while (waiting instanceof PromiseWait) {
        const settled = await waiting.promise.then(
          (value) => ({ value }),
          (error) => ({ error }),
        );
        // The connection has closed: the script is not resumed.
        if (this.#over) return;
        this.#data.inHand = hand;
        state.enter();
        const step =
          "error" in settled ? generator.throw(settled.error) : generator.next(settled.value);
        if (step.done === true) return;
        if (!(step.value instanceof HostWait))
          throw refused("script performed an unexpected yield");
        waiting = step.value;
      }
    } catch (error) {
      this.#script.failed(error);
    }
  }
}

const NOTHING = new Uint8Array(0);

/** Makes a filter class with `onClose` and the hooks that the script defines: a hook that is absent costs nothing. */
function filterClass(script: Script): NetworkFilterFactory["create"] {
  class ScriptFilter extends LuaFilter {}
  const own = LuaFilter.prototype;
  const filter = ScriptFilter.prototype as NetworkFilter;
  const { hooks } = script;
  filter.onClose = own.close;
  if (hooks.onNewConnection !== undefined) filter.onConnect = own.connect;
  if (hooks.onData !== undefined) filter.onData = own.data;
  if (hooks.onWrite !== undefined) filter.onWrite = own.write;
  return (connection, chain) => new ScriptFilter(script, connection, chain) as NetworkFilter;
}

export default defineNetworkFilter({
  name: "tsproxy.filters.network.lua",
  placement: "sandbox",
  config: Config,
  setup(config, cx) {
    const script = new Script(config, cx);
    return { create: filterClass(script) };
  },
});
