import { type Log, latin1Encode, parseIp, reply, type SetupContext, WISH } from "@tsproxy/sdk";
import {
  type Args,
  carryOut,
  headersFromTable,
  hostFunction,
  integerArgument,
  kind,
  type LuaFunction,
  type LuaTable,
  libraryError,
  type Method,
  NONE,
  optionalText,
  readCall,
  sendOff,
  tableArgument,
  textArgument,
  typeError,
} from "@tsproxy/sdk/lua";
import { importKey, verifySignature } from "./crypto.ts";
import {
  ConnectionData,
  ConnectionInfoData,
  InfoData,
  metadataOf,
  RouteData,
  VirtualHostData,
} from "./info.ts";
import { Answered, Run, waitFor } from "./run.ts";
import { fromUtf8, StructData } from "./values.ts";

/** The name under which metadata is looked up if there is none under the filter's name in the config. */
export const NAME = "envoy.filters.http.lua";

/** Globals of browsers that every isolate has too. */
declare function atob(text: string): string;
declare function btoa(text: string): string;

/** Makes the metatable of `handle`. */
export function handleKind(cx: SetupContext, log: Log): LuaTable {
  const methods: Readonly<Record<string, Method<Run>>> = {
    requestHeaders: (run) => run.requestHeadersData(),
    body: (run, args) => {
      const [wrap] = args;
      if (args.length > 0 && typeof wrap !== "boolean") throw typeError(args, 1, "body", "boolean");
      return run.body(wrap === true);
    },
    bodyChunks: (run) => {
      run.beginChunks();
      const next: LuaFunction = () => run.nextChunk();
      return hostFunction("bodyChunks_next", next);
    },
    trailers: (run) => run.trailers(),
    respond: (run, args) => respond(run, args),
    httpCall: (_run, args) => httpCall(cx, args),
    metadata: (run) =>
      run.kept("metadata", () =>
        metadataOf(run, run.stream.route?.routeMetadata, [run.kinds.configName, NAME]),
      ),
    streamInfo: (run) => run.kept("streamInfo", () => new InfoData(run.kinds.info, run)),
    connection: (run) =>
      run.kept("connection", () => new ConnectionData(run.kinds.connection, run)),
    connectionStreamInfo: (run) =>
      run.kept("connectionStreamInfo", () => new ConnectionInfoData(run.kinds.connectionInfo, run)),
    virtualHost: (run) =>
      run.kept("virtualHost", () => new VirtualHostData(run.kinds.virtualHost, run)),
    route: (run) => run.kept("route", () => new RouteData(run.kinds.route, run)),
    filterContext: (run) =>
      run.kept(
        "filterContext",
        () => new StructData(run.kinds.struct, run.owner.filterContext, run.scope),
      ),
    setUpstreamOverrideHost: ({ stream }, args) => {
      const address = textArgument(args, 1, "setUpstreamOverrideHost");
      const strict = args[1] ?? false;
      if (typeof strict !== "boolean")
        throw typeError(args, 2, "setUpstreamOverrideHost", "boolean");
      if (!isAuthority(address)) throw libraryError("host is not a valid IP address");
      stream.filterState.set(WISH.UPSTREAM_HOST, { address, strict });
      return NONE;
    },
    clearRouteCache: ({ stream }) => {
      stream.clearRoute();
      return NONE;
    },
    stats: (run) => run.owner.settings.stats,
    importPublicKey: (run, args) => {
      const text = textArgument(args, 1, "importPublicKey");
      const size = integerArgument(args, 2, "importPublicKey");
      return importKey(run, text.slice(0, Math.max(0, size)));
    },
    verifySignature: (_run, args) => verifySignature(args),
    base64Escape: (_run, args) => btoa(textArgument(args, 1, "base64Escape")),
    base64Decode: (_run, args) => {
      const text = textArgument(args, 1, "base64Decode");
      try {
        return atob(text);
      } catch {
        return undefined;
      }
    },
    timestamp: (_run, args) => {
      if ((args[0] ?? 0) !== 0) throw libraryError("timestamp format must be MILLISECOND.");
      return Date.now();
    },
    timestampString: (_run, args) => {
      const unit = args[0] ?? 0;
      if (unit === 0) return String(Date.now());
      if (unit === 1) return String(Date.now() * 1000);
      throw libraryError("timestamp format must be MILLISECOND or MICROSECOND.");
    },
  };
  return kind(log, "HttpFilters.Lua.StreamHandleWrapper", Run, methods, {
    headers: (run) => run.headersData(),
  });
}

/** Whether a text is an IP address with a port. Every upstream host has one, but Envoy accepts an address without it too. */
function isAuthority(text: string): boolean {
  const [, ip4, ip6] = /^(?:([\d.]+)|\[([\da-f:.]+)\])(?::\d{1,5})?$/i.exec(text) ?? [];
  const ip = ip4 ?? ip6;
  return ip !== undefined && parseIp(ip) !== undefined;
}

/** `handle:respond()`: keeps the local reply in `run.answer` and ends the script. */
function respond(run: Run, args: Args): never {
  if (run.isResponse) throw libraryError("respond not currently supported in the response path");
  if (run.headersGone)
    throw libraryError("respond() cannot be called if headers have been continued");
  const headers = headersFromTable(tableArgument(args, 1, "respond"), "respond", args);
  const body = optionalText(args, 2, "respond", "");
  const status = Number(headers.find(([name]) => name === ":status")?.[1]);
  if (!Number.isInteger(status) || status < 200 || status > 599)
    throw libraryError(":status must be between 200-599");
  const lines = headers.filter(([name]) => !name.startsWith(":") && !FRAMING.has(name));
  const text = fromUtf8(body);
  const isText = !text.includes("\ufffd");
  run.answer = reply(status, {
    body: isText ? text : latin1Encode(body),
    headers: lines,
    details: "lua_response",
  });
  throw new Answered();
}

const FRAMING = new Set(
  "content-length transfer-encoding connection keep-alive proxy-connection te trailer upgrade".split(
    " ",
  ),
);

/**
 * Carries out `handle:httpCall()`: suspends the script until the response is there. An asynchronous call returns nothing, and
 * waits only until its request has left, so that whatever the script then lets pass is sent after it.
 */
function httpCall(cx: SetupContext, args: Args): unknown {
  const call = readCall(args);
  return call.options.asynchronous
    ? waitFor(sendOff(cx, call).then(nothing), true)
    : waitFor(carryOut(cx, call));
}

const nothing = (): typeof NONE => NONE;
