import { formatAddress, type HttpStream, type Log, WISH } from "@tsproxy/sdk";
import {
  kind,
  type LuaTable,
  NONE,
  refused,
  type Scope,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";
import { certificateKind, TlsData, tlsKind } from "./tls.ts";
import { fromLua, fromUtf8, iterate, StructData, structKind, toLua, toUtf8 } from "./values.ts";

/** Whoever hands things of a stream to a script: a run, and what it has handed out itself. */
export interface Lender {
  readonly stream: HttpStream;
  readonly kinds: InfoKinds;
  readonly scope: Scope;
}

/** Things of a stream that scripts ask for; each is one userdata. */
class StreamData extends Userdata implements Lender {
  declare scope: Scope;
  readonly stream: HttpStream;
  readonly kinds: InfoKinds;

  constructor(metatable: LuaTable, { stream, kinds, scope }: Lender) {
    super(metatable, scope);
    this.stream = stream;
    this.kinds = kinds;
  }
}
export class InfoData extends StreamData {}
export class MetadataData extends StreamData {}
export class FilterStateData extends StreamData {}
export class ConnectionInfoData extends StreamData {}
export class ConnectionMetadataData extends StreamData {}
export class ConnectionData extends StreamData {}
export class RouteData extends StreamData {}
export class VirtualHostData extends StreamData {}
/** Metatables of one script, and the names that it goes by. */
export interface InfoKinds {
  readonly info: LuaTable;
  readonly metadata: LuaTable;
  readonly filterState: LuaTable;
  readonly connectionInfo: LuaTable;
  readonly connectionMetadata: LuaTable;
  readonly connection: LuaTable;
  readonly tls: LuaTable;
  readonly certificate: LuaTable;
  readonly struct: LuaTable;
  readonly route: LuaTable;
  readonly virtualHost: LuaTable;
  /** Under which names of `filter_metadata` the script looks, in this order. */
  readonly namespaces: readonly string[];
}

/** The filter's own part of `filter_metadata`. */
export function metadataOf(
  { kinds, scope }: Lender,
  all: Readonly<Record<string, unknown>> | undefined,
): StructData {
  const name = kinds.namespaces.find((key) => all !== undefined && Object.hasOwn(all, key));
  return new StructData(kinds.struct, name === undefined ? undefined : all![name], scope);
}

export function infoKinds(log: Log, namespaces: readonly string[]): InfoKinds {
  return {
    namespaces,
    struct: structKind(log),
    route: kind(log, RouteData, {
      metadata: (lender) => metadataOf(lender, lender.stream.route?.routeMetadata),
    }),
    virtualHost: kind(log, VirtualHostData, {
      metadata: (lender) => metadataOf(lender, lender.stream.route?.virtualHostMetadata),
    }),
    info: kind(log, InfoData, {
      protocol: ({ stream }) => stream.info.protocol,
      routeName: ({ stream }) => toUtf8(stream.route?.name ?? stream.info.routeName),
      virtualClusterName: ({ stream }) => toUtf8(stream.info.virtualCluster?.name ?? ""),
      downstreamLocalAddress: ({ stream }) => formatAddress(stream.info.downstreamLocalAddress),
      downstreamDirectLocalAddress: ({ stream }) =>
        formatAddress(stream.info.downstreamLocalAddress),
      downstreamRemoteAddress: ({ stream }) => formatAddress(stream.info.downstreamRemoteAddress),
      downstreamDirectRemoteAddress: ({ stream }) =>
        formatAddress(stream.info.downstreamDirectAddress),
      requestedServerName: ({ stream }) => stream.downstreamConnection?.serverName ?? "",
      downstreamSslConnection: tlsOf,
      dynamicMetadata: (lender) => new MetadataData(lender.kinds.metadata, lender),
      // No filter here leaves typed metadata.
      dynamicTypedMetadata: (_self, args) => {
        textArgument(args, 1, "dynamicTypedMetadata");
        return NONE;
      },
      drainConnectionUponCompletion: ({ stream }) => {
        stream.filterState.set(WISH.DRAIN_CONNECTION, true);
        return NONE;
      },
      filterState: (lender) => new FilterStateData(lender.kinds.filterState, lender),
    }),
    metadata: kind(log, MetadataData, {
      get: ({ stream }, args) =>
        toLua(stream.metadata.get(fromUtf8(textArgument(args, 1, "get")))) ?? NONE,
      set: ({ stream }, args) => {
        const name = fromUtf8(textArgument(args, 1, "set"));
        const key = fromUtf8(textArgument(args, 2, "set"));
        const value = fromLua(args[2]);
        stream.metadata.set(name, { ...stream.metadata.get(name), [key]: value });
        return NONE;
      },
      __pairs: ({ stream }) => iterate(entries(stream.metadata)),
    }),
    filterState: kind(log, FilterStateData, {
      get: ({ stream }, args) => {
        const value = stream.filterState.get(fromUtf8(textArgument(args, 1, "get")));
        if (args[1] === undefined) return toLua(value) ?? NONE;
        const field = fromUtf8(textArgument(args, 2, "get"));
        const isObject = typeof value === "object" && value !== null;
        return isObject && Object.hasOwn(value, field)
          ? toLua((value as Record<string, unknown>)[field])
          : undefined;
      },
      set: ({ stream }, args) => {
        const key = fromUtf8(textArgument(args, 1, "set"));
        const factory = textArgument(args, 2, "set");
        const value = fromUtf8(textArgument(args, 3, "set"));
        if (factory !== "envoy.string")
          throw refused(
            `no filter state object factory named '${factory}'; envoy.string works here`,
          );
        stream.filterState.set(key, value);
        return NONE;
      },
    }),
    connectionInfo: kind(log, ConnectionInfoData, {
      dynamicMetadata: (lender) =>
        new ConnectionMetadataData(lender.kinds.connectionMetadata, lender),
      dynamicTypedMetadata: (_self, args) => {
        textArgument(args, 1, "dynamicTypedMetadata");
        return NONE;
      },
    }),
    connectionMetadata: kind(log, ConnectionMetadataData, {
      get: ({ stream }, args) =>
        toLua(stream.downstreamConnection?.metadata?.get(fromUtf8(textArgument(args, 1, "get")))) ??
        NONE,
      __pairs: ({ stream }) => iterate(entries(stream.downstreamConnection?.metadata ?? new Map())),
    }),
    connection: kind(log, ConnectionData, { ssl: tlsOf }),
    tls: tlsKind(log),
    certificate: certificateKind(log),
  };
}

function* entries(
  map: ReadonlyMap<string, Record<string, unknown>>,
): Generator<readonly [string, unknown]> {
  for (const [name, value] of map) yield [toUtf8(name), toLua(value)];
}

function tlsOf(lender: Lender): TlsData | undefined {
  const tls = lender.stream.downstreamConnection?.tls;
  return tls && new TlsData(lender, tls);
}
