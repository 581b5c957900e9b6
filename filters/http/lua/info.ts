import {
  type Certificate,
  formatAddress,
  type HttpStream,
  type Log,
  type TlsInfo,
} from "@tsproxy/sdk";
import {
  hostFunction,
  kind,
  type LuaFunction,
  LuaTable,
  NONE,
  refused,
  textArgument,
  Userdata,
} from "@tsproxy/sdk/lua";
import { fromLua, fromUtf8, iterate, StructData, structKind, toLua, toUtf8 } from "./values.ts";

/** Things of a stream that scripts ask for; each is one userdata. */
class StreamData extends Userdata {
  readonly stream: HttpStream;
  readonly kinds: InfoKinds;

  constructor(metatable: LuaTable, stream: HttpStream, kinds: InfoKinds) {
    super(metatable);
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
export class TlsData extends Userdata {
  readonly tls: TlsInfo;

  constructor(metatable: LuaTable, tls: TlsInfo) {
    super(metatable);
    this.tls = tls;
  }
}
export class CertificateData extends Userdata {
  readonly certificate: Certificate;

  constructor(metatable: LuaTable, certificate: Certificate) {
    super(metatable);
    this.certificate = certificate;
  }
}

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
  kinds: InfoKinds,
  all: Readonly<Record<string, unknown>> | undefined,
): StructData {
  const name = kinds.namespaces.find((key) => all !== undefined && Object.hasOwn(all, key));
  return new StructData(kinds.struct, name === undefined ? undefined : all![name]);
}

export function infoKinds(log: Log, namespaces: readonly string[]): InfoKinds {
  return {
    namespaces,
    struct: structKind(log),
    route: kind(log, RouteData, {
      metadata: ({ stream, kinds }) => metadataOf(kinds, stream.route?.routeMetadata),
    }),
    virtualHost: kind(log, VirtualHostData, {
      metadata: ({ stream, kinds }) => metadataOf(kinds, stream.route?.virtualHostMetadata),
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
      downstreamSslConnection: ({ stream, kinds }) => tlsOf(stream, kinds),
      dynamicMetadata: ({ stream, kinds }) => new MetadataData(kinds.metadata, stream, kinds),
      // No filter here leaves typed metadata.
      dynamicTypedMetadata: (_self, args) => {
        textArgument(args, 1, "dynamicTypedMetadata");
        return NONE;
      },
      filterState: ({ stream, kinds }) => new FilterStateData(kinds.filterState, stream, kinds),
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
      dynamicMetadata: ({ stream, kinds }) =>
        new ConnectionMetadataData(kinds.connectionMetadata, stream, kinds),
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
    connection: kind(log, ConnectionData, { ssl: ({ stream, kinds }) => tlsOf(stream, kinds) }),
    tls: tlsKind(log),
    certificate: kind(log, CertificateData, {
      commonName: ({ certificate }) => part(certificate.subject, "CN"),
      organizationName: ({ certificate }) => part(certificate.subject, "O"),
    }),
  };
}

function* entries(
  map: ReadonlyMap<string, Record<string, unknown>>,
): Generator<readonly [string, unknown]> {
  for (const [name, value] of map) yield [toUtf8(name), toLua(value)];
}

function tlsOf(stream: HttpStream, kinds: InfoKinds): TlsData | undefined {
  const tls = stream.downstreamConnection?.tls;
  if (tls === undefined) return undefined;
  certificateKinds.set(tls, kinds.certificate);
  return new TlsData(kinds.tls, tls);
}

const certificateKinds = new WeakMap<TlsInfo, LuaTable>();

const list = (values: readonly string[]): LuaTable => {
  const table = new LuaTable();
  values.forEach((value, k) => {
    table.set(k + 1, toUtf8(value));
  });
  return table;
};

/** One part of a subject such as `CN=a,O=b`. */
function part(subject: string, name: string): string {
  const found = new RegExp(`(?:^|[,+/])\\s*${name}=((?:\\\\.|[^,+\\\\])*)`).exec(subject);
  return toUtf8(found?.[1] ?? "");
}

function tlsKind(log: Log): LuaTable {
  const names = (certificate: Certificate | undefined, type: string): LuaTable =>
    list((certificate?.names ?? []).filter((name) => name.type === type).map((name) => name.value));
  const methods: Record<string, (tls: TlsInfo) => unknown> = {
    peerCertificatePresented: ({ peer }) => peer !== undefined,
    peerCertificateValidated: ({ peerValidated }) => peerValidated,
    uriSanLocalCertificate: ({ local }) => names(local, "URI"),
    dnsSansLocalCertificate: ({ local }) => names(local, "DNS"),
    uriSanPeerCertificate: ({ peer }) => names(peer, "URI"),
    dnsSansPeerCertificate: ({ peer }) => names(peer, "DNS"),
    subjectLocalCertificate: ({ local }) => toUtf8(local?.subject ?? ""),
    subjectPeerCertificate: ({ peer }) => toUtf8(peer?.subject ?? ""),
    issuerPeerCertificate: ({ peer }) => toUtf8(peer?.issuer ?? ""),
    serialNumberPeerCertificate: ({ peer }) => peer?.serial ?? "",
    sha256PeerCertificateDigest: ({ peer }) => peer?.sha256 ?? "",
    urlEncodedPemEncodedPeerCertificate: ({ peer }) =>
      peer === undefined ? "" : encodeURIComponent(peer.pem),
    urlEncodedPemEncodedPeerCertificateChain: ({ peerChain }) =>
      encodeURIComponent(peerChain.join("")),
    sessionId: (tls) => tls.sessionId,
    ciphersuiteString: ({ cipher }) => cipher,
    tlsVersion: ({ version }) => version,
    validFromPeerCertificate: ({ peer }) =>
      peer === undefined ? undefined : seconds(peer.notBefore),
    expirationPeerCertificate: ({ peer }) =>
      peer === undefined ? undefined : seconds(peer.notAfter),
    parsedSubjectPeerCertificate: (tls) =>
      tls.peer === undefined
        ? undefined
        : new CertificateData(certificateKinds.get(tls)!, tls.peer),
  };
  const table = kind(log, TlsData, {});
  for (const [name, read] of Object.entries(methods)) {
    const called: LuaFunction = (self) => {
      if (self instanceof TlsData) return read(self.tls);
      throw refused(`bad argument #1 to '${name}'`);
    };
    table.set(name, hostFunction(name, called));
  }
  return table;
}

const seconds = (time: number): number => Math.floor(time / 1000);
