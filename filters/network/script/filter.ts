import {
  type Chunk,
  type CloseEvent,
  type DownstreamConnection,
  defineNetworkFilter,
  type NetworkChain,
  type NetworkFilter,
  ScriptProgram,
  type SetupContext,
  scriptNames,
} from "@tsproxy/sdk";
import { Config } from "./config.ts";
import { ScriptConnection, ScriptData } from "./connection.ts";

const PARAMETERS = {
  onConnect: "conn",
  onData: "data, conn, end",
  onWrite: "data, conn, end",
  onClose: "conn, event",
} as const;

type OnBytes = (data: ScriptData, conn: ScriptConnection, end: boolean) => unknown;

interface Functions {
  readonly onConnect?: (conn: ScriptConnection) => unknown;
  readonly onData?: OnBytes;
  readonly onWrite?: OnBytes;
  readonly onClose?: (conn: ScriptConnection, event: CloseEvent) => unknown;
}

/** One script of the config. */
class Script {
  readonly functions: Functions;
  readonly #program: ScriptProgram;

  constructor({ inline, file, config, ...bodies }: Config, cx: SetupContext) {
    const forms = { inline, file, bodies };
    this.#program = new ScriptProgram(forms, PARAMETERS, scriptNames(config, cx));
    this.functions = this.#program.functions as Functions;
  }

  /** Whether that word stands in it. */
  names(word: string): boolean {
    return this.#program.names(word);
  }

  /** Runs a function of the script. Its errors name the place in the user's file. */
  run(call: () => unknown): Promise<void> | void {
    try {
      const result = call();
      if (typeof (result as PromiseLike<unknown> | undefined)?.then === "function")
        return this.#settled(result as PromiseLike<unknown>);
    } catch (error) {
      throw this.#program.located(error);
    }
  }

  async #settled(promise: PromiseLike<unknown>): Promise<void> {
    try {
      await promise;
    } catch (error) {
      throw this.#program.located(error);
    }
  }
}

/** A filter with only the hooks that the script needs, so that the others cost nothing. */
function filterFor(
  script: Script,
  connection: DownstreamConnection,
  chain: NetworkChain,
): NetworkFilter {
  const { onConnect, onData, onWrite, onClose } = script.functions;
  const conn = new ScriptConnection(connection, chain);
  const filter: NetworkFilter = {};
  if (onConnect !== undefined) filter.onConnect = () => script.run(() => onConnect(conn));
  /** Makes a hook for bytes, in which the script may replace them. */
  const bytes = (on: OnBytes) => (chunk: Chunk, endStream: boolean) => {
    const lent = chunk.memory;
    const result = script.run(() => on(new ScriptData(chunk), conn, endStream));
    if (result === undefined) return undefined;
    // The bytes are lent until the hook returns, so a script that waits goes on with a copy, and later filters get that.
    if (chunk.memory === lent) chunk.replace(chunk.copy());
    return result.then(() => chunk.copy());
  };
  if (onData !== undefined) filter.onData = bytes(onData);
  if (onWrite !== undefined) filter.onWrite = bytes(onWrite);
  if (onClose !== undefined)
    filter.onClose = (event) => void script.run(() => onClose(conn, event));
  return filter;
}

export default defineNetworkFilter({
  name: "tsproxy.filters.network.script",
  placement: "sandbox",
  sandbox: { shared: true },
  config: Config,
  setup(config, cx) {
    const script = new Script(config, cx);
    return {
      create: (connection, chain) => filterFor(script, connection, chain),
      stateless: !script.names("state"),
    };
  },
});
