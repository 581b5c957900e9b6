import type { HttpStream, Route, StreamInfo, WireBytes } from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import { HOOK, type HookMask } from "./sandbox/layout.ts";
import { type Change, Mirror } from "./sandbox/mirror.ts";

/** Bits of the facts: parts of a stream other than heads and bodies. */
const FACTS =
  HOOK.INFO |
  HOOK.ROUTE |
  HOOK.METADATA |
  HOOK.FILTER_STATE |
  HOOK.CONNECTION_STATE |
  HOOK.DOWNSTREAM;

/** Whether a package with these hooks reads any facts. */
export const asksForFacts = (hooks: HookMask): boolean => (hooks & FACTS) !== 0;

/** Most entries of a map that sandboxes may write: a connection's map could otherwise grow with every stream. */
const ENTRIES_MAX = 256;
/** Key in `connectionState` of the map for sandboxed filters. Other entries may be live objects, which cannot cross. */
const SANDBOXED = "tsproxy.sandboxed";

/**
 * The facts of one stream for one sandboxed filter: StreamInfo, route, metadata, filter state, connection state and downstream
 * connection, as far as the package reads them. Finds what has changed since it was last sent, and applies what the sandbox sets.
 */
export class ParkedFacts {
  readonly #stream: HttpStream;
  readonly #hooks: HookMask;
  readonly #metadata = new Mirror();
  readonly #filterState = new Mirror();
  readonly #connectionState = new Mirror();
  #route: Route | undefined = undefined;
  #first = true;

  constructor(stream: HttpStream, hooks: HookMask) {
    this.#stream = stream;
    this.#hooks = hooks;
  }

  /** JSON in ASCII of what has changed since the last call; "" if nothing. `info`: include StreamInfo (counts and times). */
  text(info: boolean): string {
    const stream = this.#stream;
    const hooks = this.#hooks;
    const first = this.#first;
    this.#first = false;
    let text = "";
    const add = (name: string, json: string): void => {
      if (json !== "") text += `${text === "" ? "{" : ","}"${name}":${json}`;
    };
    if (info && (hooks & HOOK.INFO) !== 0) add("info", infoText(stream.info));
    if ((hooks & HOOK.ROUTE) !== 0) {
      const { route } = stream;
      if (first || route !== this.#route) add("route", routeText(route));
      this.#route = route;
    }
    if ((hooks & HOOK.METADATA) !== 0) add("metadata", this.#metadata.changes(stream.metadata));
    if ((hooks & HOOK.FILTER_STATE) !== 0)
      add("filterState", this.#filterState.changes(stream.filterState));
    if ((hooks & HOOK.CONNECTION_STATE) !== 0)
      add("connectionState", this.#connectionState.changes(sandboxedState(stream)));
    if (first && (hooks & HOOK.DOWNSTREAM) !== 0) add("downstream", downstreamText(stream));
    return text === "" ? "" : ascii(`${text}}`);
  }

  /** Applies what the sandbox has set. `text` is untrusted; false: it is malformed. */
  apply(text: string): boolean {
    let told: { metadata?: unknown; filterState?: unknown; connectionState?: unknown };
    try {
      told = JSON.parse(text);
    } catch {
      return false;
    }
    const { metadata, filterState, connectionState } = told;
    return (
      take(this.#metadata, this.#stream.metadata as Map<string, unknown>, metadata, isObject) &&
      take(this.#filterState, this.#stream.filterState, filterState, isAny) &&
      take(this.#connectionState, sandboxedState(this.#stream), connectionState, isAny)
    );
  }
}

const isAny = (): boolean => true;
const isObject = (value: unknown): boolean =>
  typeof value === "object" && value !== null && !Array.isArray(value);

function take(
  mirror: Mirror,
  map: Map<string, unknown>,
  changes: unknown,
  isValue: (value: unknown) => boolean,
): boolean {
  if (changes === undefined) return true;
  if (!Array.isArray(changes)) return false;
  for (const change of changes as unknown[]) {
    if (!Array.isArray(change) || typeof change[0] !== "string") return false;
    if (change.length > 1 && (change[1] === null || !isValue(change[1]))) return false;
    if (change.length > 1 && map.size >= ENTRIES_MAX && !map.has(change[0])) return false;
  }
  mirror.apply(map, changes as Change[]);
  return true;
}

function sandboxedState({ connectionState }: HttpStream): Map<string, unknown> {
  let own = connectionState.get(SANDBOXED) as Map<string, unknown> | undefined;
  if (own === undefined) {
    own = new Map();
    connectionState.set(SANDBOXED, own);
  }
  return own;
}

/** JSON of a StreamInfo. Of objects that belong to other packages (cluster, host), only the members that StreamInfo names. */
export function infoText(info: StreamInfo): string {
  const { cluster, host, virtualCluster, downstreamWire, upstreamWire } = info;
  return JSON.stringify({
    ...info,
    cluster: cluster && {
      metadata: cluster.metadata,
      observabilityName: cluster.observabilityName,
    },
    host: host && { hostname: host.hostname, metadata: host.metadata },
    virtualCluster: virtualCluster && { name: virtualCluster.name },
    downstreamWire: wireBytes(downstreamWire),
    upstreamWire: wireBytes(upstreamWire),
  });
}

/** Plain numbers: the codec's object has other members, too. */
function wireBytes(wire: WireBytes | undefined): WireBytes | undefined {
  if (wire === undefined) return undefined;
  const { wireReceived = 0, wireSent = 0, headerReceived = 0, headerSent = 0 } = wire;
  const { fieldsReceived = headerReceived, fieldsSent = headerSent } = wire;
  return { wireReceived, wireSent, headerReceived, headerSent, fieldsReceived, fieldsSent };
}

const routeTexts = new WeakMap<Route, string>();

function routeText(route: Route | undefined): string {
  if (route === undefined) return "null";
  let text = routeTexts.get(route);
  if (text === undefined) {
    const { name, virtualHostName, action, routeMetadata, virtualHostMetadata } = route;
    text = JSON.stringify({
      name,
      virtualHostName,
      action: plain(action),
      routeMetadata,
      virtualHostMetadata,
    });
    routeTexts.set(route, text);
  }
  return text;
}

/** The members of an action that are plain values, without functions and compiled policies. */
function plain(action: Route["action"]): unknown {
  if (action.type === "redirect") return { type: "redirect", status: action.status };
  if (action.type === "direct_response")
    return { type: "direct_response", status: action.status, body: action.body };
  const { type, cluster, clusterNotFoundStatus, timeoutMs, idleTimeoutMs, autoHostRewrite } =
    action;
  return { type, cluster, clusterNotFoundStatus, timeoutMs, idleTimeoutMs, autoHostRewrite };
}

/** Longer texts are sent without the peer's certificate chain, whose PEM might not fit a record. */
const DOWNSTREAM_MAX = 16 * 1024;
const downstreamTexts = new WeakMap<object, string>();

function downstreamText({ downstreamConnection }: HttpStream): string {
  if (downstreamConnection === undefined) return "";
  let text = downstreamTexts.get(downstreamConnection);
  if (text === undefined) {
    text = describeDownstream(downstreamConnection);
    downstreamTexts.set(downstreamConnection, text);
  }
  return text;
}

function describeDownstream(connection: NonNullable<HttpStream["downstreamConnection"]>): string {
  const { remoteAddress, localAddress } = connection;
  const { serverName, transportProtocol, applicationProtocols } = connection;
  const { ja3Fingerprint, ja4Fingerprint } = connection;
  // Core's listener object also holds its whole config, which is left out.
  const { name, statPrefix, direction, drainType, metadata: own } = connection.listener;
  const listener = { name, statPrefix, direction, drainType, metadata: own };
  const { filterChainName, filterChainMetadata, secure, tls, metadata } = connection;
  const facts = {
    remoteAddress,
    localAddress,
    listener,
    serverName,
    transportProtocol,
    applicationProtocols,
    ja3Fingerprint,
    ja4Fingerprint,
    filterChainName,
    filterChainMetadata,
    secure,
  };
  const more = { ...facts, metadata: [...(metadata ?? [])] };
  const text = JSON.stringify({ ...more, tls });
  if (text.length <= DOWNSTREAM_MAX || tls === undefined) return text;
  return JSON.stringify({ ...more, tls: { ...tls, peerChain: [], peerChainMarks: [] } });
}
