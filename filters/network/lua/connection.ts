import {
  type CloseEvent,
  type DownstreamConnection,
  formatAddress,
  type Log,
  latin1Encode,
  type NetworkChain,
} from "@tsproxy/sdk";
import {
  carryOut,
  HostWait,
  kind,
  LuaTable,
  NONE,
  optionalText,
  readCall,
  refused,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";
import type { Script } from "./script.ts";

/** State of the bytes that one run of `onData` or `onWrite` is about. */
export class BytesInHand {
  /** The script has called `conn:drop()`: later filters do not get the bytes. */
  isDropped = false;
}

/** `conn`: the downstream connection as a script sees it. */
export class ConnectionData extends Userdata {
  readonly connection: DownstreamConnection;
  readonly script: Script;
  readonly chain: NetworkChain;
  /** `conn:data()`: a table in which the script keeps what it likes for as long as the connection lasts. */
  readonly data = new LuaTable();
  /** The bytes that the running hook was called with; undefined: it is neither `onData` nor `onWrite`. */
  inHand: BytesInHand | undefined = undefined;

  constructor(script: Script, connection: DownstreamConnection, chain: NetworkChain) {
    super(script.tables.connection);
    this.script = script;
    this.connection = connection;
    this.chain = chain;
  }
}

/** Yielded by a script that waits for a promise of the host; the script resumes with the promise's value or error. */
export class PromiseWait extends HostWait {
  readonly promise: Promise<unknown>;

  constructor(promise: Promise<unknown>) {
    super();
    this.promise = promise;
  }
}

function* waitFor(promise: Promise<unknown>): Generator<unknown, unknown, unknown> {
  return yield new PromiseWait(promise);
}

const WAYS = ["flush", "abort", "reset"] as const;

export function connectionKind(log: Log): LuaTable {
  return kind(log, "NetworkFilters.Lua.ConnectionWrapper", ConnectionData, {
    id: ({ connection }) => connection.id,
    remoteAddress: ({ connection }) => formatAddress(connection.remoteAddress),
    localAddress: ({ connection }) => formatAddress(connection.localAddress),
    serverName: ({ connection }) => connection.serverName,
    transportProtocol: ({ connection }) => connection.transportProtocol,
    listener: ({ connection }) => connection.listener.name,
    bytesReceived: ({ connection }) => connection.bytesReceived,
    bytesSent: ({ connection }) => connection.bytesSent,
    data: ({ data }) => data,
    stats: ({ script }) => script.stats,
    write: ({ chain }, args) => {
      chain.injectWrite(latin1Encode(textArgument(args, 1, "write")));
      return NONE;
    },
    drop: ({ inHand }) => {
      if (inHand === undefined) throw refused("drop() is for bytes: in onData and onWrite");
      inHand.isDropped = true;
      return NONE;
    },
    close: ({ connection }, args) => {
      const asked = optionalText(args, 1, "close", "flush");
      const how = WAYS.find((way) => way === asked);
      if (how === undefined)
        throw refused(`close() takes "flush", "abort" or "reset", not "${asked}"`);
      connection.close(how);
      return NONE;
    },
    httpCall: ({ script }, args) => {
      const call = readCall(args);
      const answer = carryOut(script.cx, call);
      if (!call.options.asynchronous) return waitFor(answer);
      answer.catch((error) => script.failed(error));
      return NONE;
    },
  });
}

/** The argument of `onClose`: the error if there was one, else "timeout" or the side that closed. */
export function reasonOf({ by, error, timeout }: CloseEvent): string {
  if (error !== undefined) return error;
  return timeout ? "timeout" : by;
}
