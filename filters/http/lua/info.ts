import {
  filterStateFactory,
  filterStateText,
  formatAddress,
  type HttpStream,
  type Log,
  setStreamState,
  typedMetadataOf,
  WISH,
} from "@tsproxy/sdk";
import {
  kind,
  type LuaTable,
  libraryError,
  NONE,
  type Scope,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";
import { certificateKind, TlsData, tlsKind } from "./tls.ts";
import { fromLua, fromUtf8, iterate, StructData, structKind, toLua, toUtf8 } from "./values.ts";

/** The TLVs that this listener filter finds are in the connection's metadata and in its typed metadata (Envoy's TlvsMetadata). */
const PROXY_PROTOCOL = "envoy.filters.listener.proxy_protocol";

/** What the userdata of this file need of the run that hands them to the script. */
export interface Lender {
  readonly stream: HttpStream;
  readonly isResponse: boolean;
  readonly kinds: InfoKinds;
  readonly scope: Scope;
  /** Returns the object kept under `key`; makes one if there is none or its scope is over. */
  kept<T extends Userdata>(key: string, make: () => T): T;
}

/** Base of the userdata through which scripts read parts of a stream. */
class StreamData extends Userdata {
  readonly lender: Lender;

  constructor(metatable: LuaTable, lender: Lender) {
    super(metatable, lender.scope);
    this.lender = lender;
  }

  get stream(): HttpStream {
    return this.lender.stream;
  }
}
export class InfoData extends StreamData {}
export class MetadataData extends StreamData {
  iterating = false;
}
export class FilterStateData extends StreamData {}
export class ConnectionInfoData extends StreamData {}
export class ConnectionMetadataData extends StreamData {
  iterating = false;
}
export class ConnectionData extends StreamData {}
export class RouteData extends StreamData {}
export class VirtualHostData extends StreamData {}
/** The metatables of one script, and its filter's name. */
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
  /** The filter's name in the config: scripts read the part of `filter_metadata` under this name. */
  readonly configName: string;
}

/** Returns the part of `filter_metadata` under the first of `names` that it has; an empty one if it has none of them. */
export function metadataOf(
  { kinds, scope }: Lender,
  all: Readonly<Record<string, unknown>> | undefined,
  names: readonly string[],
): StructData {
  const name = names.find((key) => all !== undefined && Object.hasOwn(all, key));
  return new StructData(kinds.struct, name === undefined ? undefined : all![name], scope);
}

export function infoKinds(log: Log, configName: string): InfoKinds {
  const names = [configName];
  return {
    configName,
    struct: structKind(log),
    route: kind(log, "HttpFilters.Lua.RouteWrapper", RouteData, {
      metadata: ({ lender }) =>
        lender.kept("route.metadata", () =>
          metadataOf(lender, lender.stream.route?.routeMetadata, names),
        ),
    }),
    virtualHost: kind(log, "HttpFilters.Lua.VirtualHostWrapper", VirtualHostData, {
      metadata: ({ lender }) =>
        lender.kept("virtualHost.metadata", () =>
          metadataOf(lender, lender.stream.route?.virtualHostMetadata, names),
        ),
    }),
    info: kind(log, "HttpFilters.Lua.StreamInfoWrapper", InfoData, {
      protocol: ({ stream }) => stream.info.protocol,
      routeName: ({ stream }) => toUtf8(stream.route?.name ?? stream.info.routeName),
      virtualClusterName: ({ stream }) => toUtf8(stream.info.virtualCluster?.name ?? ""),
      downstreamLocalAddress: ({ stream }) => formatAddress(stream.info.downstreamLocalAddress),
      downstreamDirectLocalAddress: ({ stream: { info } }) =>
        formatAddress(info.downstreamDirectLocalAddress ?? info.downstreamLocalAddress),
      downstreamRemoteAddress: ({ stream }) => formatAddress(stream.info.downstreamRemoteAddress),
      downstreamDirectRemoteAddress: ({ stream }) =>
        formatAddress(stream.info.downstreamDirectAddress),
      requestedServerName: ({ stream }) => stream.downstreamConnection?.serverName ?? "",
      downstreamSslConnection: tlsOf,
      dynamicMetadata: ({ lender }) =>
        lender.kept("dynamicMetadata", () => new MetadataData(lender.kinds.metadata, lender)),
      dynamicTypedMetadata: ({ stream }, args) => {
        const name = fromUtf8(textArgument(args, 1, "dynamicTypedMetadata"));
        const all = typedMetadataOf(stream.filterState);
        return all !== undefined && Object.hasOwn(all, name) ? toLua(all[name]) : undefined;
      },
      drainConnectionUponCompletion: ({ stream }) => {
        stream.filterState.set(WISH.DRAIN_CONNECTION, true);
        return NONE;
      },
      filterState: ({ lender }) =>
        lender.kept("filterState", () => new FilterStateData(lender.kinds.filterState, lender)),
    }),
    metadata: kind(log, "HttpFilters.Lua.DynamicMetadataMapWrapper", MetadataData, {
      get: ({ stream }, args) =>
        toLua(stream.metadata.get(fromUtf8(textArgument(args, 1, "get")))) ?? NONE,
      set: (self, args) => {
        const { stream } = self;
        if (self.iterating)
          throw libraryError("dynamic metadata map cannot be modified while iterating");
        const name = fromUtf8(textArgument(args, 1, "set"));
        const key = fromUtf8(textArgument(args, 2, "set"));
        const value = fromLua(args[2]);
        stream.metadata.set(name, { ...stream.metadata.get(name), [key]: value });
        return NONE;
      },
      __pairs: (self) => iterate(self, entries(self.stream.metadata)),
    }),
    filterState: kind(log, "HttpFilters.Lua.FilterStateWrapper", FilterStateData, {
      get: ({ stream }, args) => {
        const key = fromUtf8(textArgument(args, 1, "get"));
        const value = stream.filterState.get(key);
        if (args[1] === undefined) return toLua(filterStateText(value) ?? plain(value)) ?? NONE;
        const field = fromUtf8(textArgument(args, 2, "get"));
        const isObject = typeof value === "object" && value !== null;
        return isObject && Object.hasOwn(value, field)
          ? toLua((value as Record<string, unknown>)[field])
          : NONE;
      },
      set: ({ stream }, args) => {
        const key = fromUtf8(textArgument(args, 1, "set"));
        const factory = textArgument(args, 2, "set");
        const value = fromUtf8(textArgument(args, 3, "set"));
        const make = filterStateFactory(factory);
        if (make === undefined) throw libraryError(`'${factory}' does not have an object factory`);
        const made = make(value);
        if (made === undefined)
          throw libraryError(`failed to create an object '${toUtf8(key)}' from value '${args[2]}'`);
        setStreamState(stream, key, made);
        return NONE;
      },
    }),
    connectionInfo: kind(log, "HttpFilters.Lua.ConnectionStreamInfoWrapper", ConnectionInfoData, {
      dynamicMetadata: ({ lender }) =>
        lender.kept(
          "connection.metadata",
          () => new ConnectionMetadataData(lender.kinds.connectionMetadata, lender),
        ),
      dynamicTypedMetadata: ({ stream }, args) => {
        const name = textArgument(args, 1, "dynamicTypedMetadata");
        const told = stream.downstreamConnection?.metadata?.get(name);
        return name === PROXY_PROTOCOL && told ? toLua({ typed_metadata: told }) : undefined;
      },
    }),
    connectionMetadata: kind(
      log,
      "HttpFilters.Lua.ConnectionDynamicMetadataMapWrapper",
      ConnectionMetadataData,
      {
        get: ({ stream }, args) =>
          toLua(
            stream.downstreamConnection?.metadata?.get(fromUtf8(textArgument(args, 1, "get"))),
          ) ?? NONE,
        __pairs: (self) =>
          iterate(self, entries(self.stream.downstreamConnection?.metadata ?? new Map())),
      },
    ),
    connection: kind(log, "Filters.Common.Lua.ConnectionWrapper", ConnectionData, { ssl: tlsOf }),
    tls: tlsKind(log),
    certificate: certificateKind(log),
  };
}

function* entries(
  map: ReadonlyMap<string, Record<string, unknown>>,
): Generator<readonly [string, unknown]> {
  for (const [name, value] of map) yield [toUtf8(name), toLua(value)];
}

function tlsOf({ lender }: StreamData): TlsData | undefined {
  const tls = lender.stream.downstreamConnection?.tls;
  return tls && lender.kept("tls", () => new TlsData(lender, tls));
}

/** What filters in a sandbox keep is JSON; an object of Envoy's that has no text is none for scripts. */
function plain(value: unknown): unknown {
  const isObject = typeof value === "object" && value !== null;
  return isObject && "toJSON" in value ? undefined : value;
}
