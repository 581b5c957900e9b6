import {
  Chunk,
  type CloseEvent,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkFilter,
} from "@tsproxy/sdk";
import { BufferData, HostWait, isPending, type LuaFunction, refused, wait } from "@tsproxy/sdk/lua";
import { Config } from "./config.ts";
import { ConnectionData, PromiseWait, reasonOf } from "./connection.ts";
import { Script } from "./script.ts";

/** One connection of a script. Its functions are called one after the other, the next when the one before has ended. */
class LuaFilter implements NetworkFilter {
  readonly #script: Script;
  readonly #data: ConnectionData;
  #over = false;

  constructor(script: Script, connection: DownstreamConnection) {
    this.#script = script;
    this.#data = new ConnectionData(script, connection);
  }

  onConnect(): undefined | Promise<void> {
    const hook = this.#script.hooks.onNewConnection;
    return hook === undefined ? undefined : this.#run(hook, []);
  }

  onData(chunk: Chunk, endStream: boolean): undefined | Promise<Uint8Array> {
    const hook = this.#script.hooks.onData;
    if (hook === undefined) return undefined;
    // Later filters get what is in here when the script is done; the bytes of the event end before that.
    const copy = chunk.copy();
    const own = new Chunk(copy, 0, copy.length);
    const buffer = new BufferData(this.#script.tables.buffer, own);
    this.#data.isDropped = false;
    const bytes = (): Uint8Array => (this.#data.isDropped ? NOTHING : own.memory);
    const waiting = this.#run(hook, [buffer, endStream]);
    if (waiting !== undefined) return waiting.then(bytes);
    if (bytes() !== copy) chunk.replace(bytes());
    return undefined;
  }

  onClose(event: CloseEvent): void {
    const hook = this.#script.hooks.onClose;
    if (hook !== undefined) void this.#run(hook, [reasonOf(event)]);
    this.#over = true;
  }

  /** Undefined: it has ended. */
  #run(hook: LuaFunction, args: readonly unknown[]): undefined | Promise<void> {
    const script = this.#script;
    script.enter();
    try {
      const result = hook(this.#data, ...args);
      if (!isPending(result)) return undefined;
      const generator = wait(result);
      return this.#goOn(generator, generator.next());
    } catch (error) {
      script.failed(error);
      return undefined;
    }
  }

  #goOn(
    generator: Generator<unknown, unknown, unknown>,
    step: IteratorResult<unknown, unknown>,
  ): undefined | Promise<void> {
    if (step.done === true) return undefined;
    const waiting = step.value;
    if (!(waiting instanceof HostWait)) throw refused("script performed an unexpected yield");
    return this.#finish(generator, waiting as PromiseWait);
  }

  async #finish(
    generator: Generator<unknown, unknown, unknown>,
    first: PromiseWait,
  ): Promise<void> {
    const { state } = this.#script;
    let waiting: unknown = first;
    try {
      while (waiting instanceof PromiseWait) {
        const settled = await waiting.promise.then(
          (value) => ({ value }),
          (error) => ({ error }),
        );
        // Nobody waits for a script whose connection is gone.
        if (this.#over) return;
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

export default defineNetworkFilter({
  name: "tsproxy.filters.network.lua",
  placement: "sandbox",
  config: Config,
  setup(config, cx) {
    const script = new Script(config, cx);
    return { create: (connection) => new LuaFilter(script, connection) };
  },
});
