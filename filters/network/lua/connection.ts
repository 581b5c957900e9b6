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

/** Bytes on their way in either direction. */
export class BytesInHand {
  /** The script wants no later filter to see them. */
  isDropped = false;
}

/** `conn`: a client's connection in the hands of a script. */
export class ConnectionData extends Userdata {
  readonly connection: DownstreamConnection;
  readonly script: Script;
  readonly chain: NetworkChain;
  /** What the script keeps for this connection: it ends with it. */
  readonly data = new LuaTable();
  /** What the function that runs now was called with; undefined: no bytes. */
  inHand: BytesInHand | undefined = undefined;

  constructor(script: Script, connection: DownstreamConnection, chain: NetworkChain) {
    super(script.tables.connection);
    this.script = script;
    this.connection = connection;
    this.chain = chain;
  }
}

/** Waits for a promise of the host; the script goes on with what it brings. */
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
  return kind(log, ConnectionData, {
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

/** What `onClose` is told. */
export function reasonOf({ by, error, timeout }: CloseEvent): string {
  if (error !== undefined) return error;
  return timeout ? "timeout" : by;
}
