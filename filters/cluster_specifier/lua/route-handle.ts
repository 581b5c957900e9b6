// Hot path: the objects that `envoy_on_route` works with.
import {
  type Cluster,
  type Log,
  latin1Encode,
  type RequestHeaders,
  type SetupContext,
  utf8Decode,
} from "@tsproxy/sdk";
import {
  kind,
  type LuaTable,
  NONE,
  type Scope,
  textArgument,
  textOf,
  Userdata,
} from "@tsproxy/sdk/lua";

/** The metatables of one script. */
export interface RouteKinds {
  readonly handle: LuaTable;
  readonly headers: LuaTable;
  readonly cluster: LuaTable;
}

/** `handle`, the argument of `envoy_on_route`: the request whose cluster is chosen. */
export class RouteHandle extends Userdata {
  readonly kinds: RouteKinds;
  readonly request: RequestHeaders;

  constructor(kinds: RouteKinds, request: RequestHeaders, scope: Scope) {
    super(kinds.handle, scope);
    this.kinds = kinds;
    this.request = request;
  }
}

/** What `handle:headers()` returns: the request headers, read-only. */
class HeadersData extends Userdata {
  readonly map: RequestHeaders;

  constructor({ kinds, request, scope }: RouteHandle) {
    super(kinds.headers, scope);
    this.map = request;
  }

  /** All values of a header, joined with commas; undefined: there is no such header. */
  get(written: string): string | undefined {
    const { map } = this;
    const name = written.toLowerCase();
    switch (name) {
      case ":path":
        return map.path;
      case ":method":
        return map.method;
      case ":authority":
      case "host":
        return map.authority;
      case ":scheme":
        return map.scheme;
    }
    if (!TOKEN.test(name)) return undefined;
    const values = map.getAll(name);
    return values.length < 2 ? values[0] : values.join();
  }
}

const TOKEN = /^[!#$%&'*+.^_`|~0-9a-z-]+$/;

/** What `handle:getCluster(name)` returns. */
class ClusterData extends Userdata {
  readonly cluster: Cluster;

  constructor({ kinds, scope }: RouteHandle, cluster: Cluster) {
    super(kinds.cluster, scope);
    this.cluster = cluster;
  }
}

/** Makes the metatables of one script. */
export function routeKinds(log: Log, clusters: SetupContext["clusters"]): RouteKinds {
  return {
    handle: kind(
      log,
      "Router.Cluster.Lua.RouteHandleWrapper",
      RouteHandle,
      {
        getCluster: (self, args) => {
          const name = latin1Encode(textArgument(args, 1, "getCluster"));
          const cluster = clusters.get(utf8Decode(name, 0, name.length));
          return cluster === undefined ? NONE : new ClusterData(self, cluster);
        },
      },
      { headers: (self) => new HeadersData(self) },
    ),
    headers: kind(
      log,
      "Router.Cluster.Lua.HeaderMapWrapper",
      HeadersData,
      {},
      { get: (self, name, _none, count) => self.get(textOf(name, 1, count, "get")) ?? NONE },
    ),
    cluster: kind(log, "Router.Cluster.Lua.ClusterWrapper", ClusterData, {
      numConnections: ({ cluster }) => cluster.inUse?.connections ?? 0,
      numRequests: ({ cluster }) => cluster.inUse?.requests ?? 0,
      numPendingRequests: ({ cluster }) => cluster.inUse?.pendingRequests ?? 0,
    }),
  };
}
