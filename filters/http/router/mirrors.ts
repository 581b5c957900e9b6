import {
  type Chunk,
  type HeaderMap,
  type HttpStream,
  headerName,
  type MetadataCriterion,
  type MirrorPolicy,
  RequestHeaders,
} from "@tsproxy/sdk";
import { Mirror } from "./mirror.ts";
import type { Router } from "./router.ts";

const FORWARDED_FOR = headerName("x-forwarded-for");
const INTERNAL = headerName("x-envoy-internal");
/** Limit of mirrored requests in progress, for one router: a slow mirror must not hold the bodies of all requests. */
const MAX_MIRRORS = 1024;

/** How the copies of one request are sent. */
export interface MirrorOptions {
  readonly upgrade: string;
  /** Starts at the end of the request; 0: none. */
  readonly timeoutMs: number;
  /** Bytes of body that one copy keeps for a connection before the request is paused. */
  readonly bufferLimit: number;
  /** The subset that the request itself asks for: as in Envoy, its copies do the same. */
  readonly metadataMatch: readonly MetadataCriterion[] | undefined;
}

/**
 * The copies of one request that go to mirrors.
 *
 *   planned (heads are copied) ──> begun (the request waits for a host or is sent) ──> fed with the body as it comes ──> ended, each on its own
 *                                                                          └ the request breaks off: given up
 */
export class Mirrors {
  readonly #router: Router;
  readonly #targets: readonly { readonly cluster: string; readonly headers: RequestHeaders }[];
  #open: readonly Mirror[] = [];

  constructor(router: Router, policies: readonly MirrorPolicy[], stream: HttpStream) {
    this.#router = router;
    const headers = stream.request;
    this.#targets = policies.flatMap((policy) => {
      if (!policy.chosen()) return [];
      const cluster = clusterOf(policy, headers);
      return cluster === "" ? [] : [{ cluster, headers: shadowHead(policy, stream, router) }];
    });
  }

  get empty(): boolean {
    return this.#targets.length === 0;
  }

  /** Some copy takes no more of the body for now, so the request is paused. */
  get full(): boolean {
    return this.#open.some((mirror) => mirror.full);
  }

  /** Sends the heads. `onFull`: `full` may have changed; undefined: the request has ended with its head. */
  begin(options: MirrorOptions, onFull: (() => void) | undefined): void {
    const router = this.#router;
    const begun: Mirror[] = [];
    for (const { cluster: name, headers } of this.#targets) {
      const cluster = router.cx.clusters.get(name);
      if (cluster === undefined) continue;
      if (router.mirrors.size >= MAX_MIRRORS) {
        router.onMirrorDropped(name, MAX_MIRRORS);
        continue;
      }
      const mirror = new Mirror(router, cluster, headers, options);
      begun.push(mirror);
      mirror.begin(onFull);
    }
    this.#open = begun;
  }

  body(chunk: Chunk, endStream: boolean): void {
    for (const mirror of this.#open) mirror.body(chunk, endStream);
  }

  /** `trailers` are kept by copies that wait for their connection. */
  trailers(trailers: HeaderMap): void {
    for (const mirror of this.#open) mirror.trailers(trailers);
  }

  /** Gives up the copies of a request that breaks off. */
  giveUp(): void {
    for (const mirror of this.#open) mirror.giveUp();
  }
}

function clusterOf(policy: MirrorPolicy, headers: RequestHeaders): string {
  const { cluster, clusterHeader } = policy;
  return clusterHeader === undefined ? cluster : (headers.get(clusterHeader) ?? "");
}

/** A copy of the head as Envoy sends it: from an internal client, over one more hop, to another host. */
function shadowHead(policy: MirrorPolicy, stream: HttpStream, router: Router): RequestHeaders {
  const headers = stream.request;
  const copy = new RequestHeaders();
  copy.method = headers.method;
  copy.path = headers.path;
  copy.scheme = headers.scheme;
  for (const [name, value] of headers) copy.append(name, value);
  const before = copy.getAll(FORWARDED_FOR);
  const own = router.cx.node.address;
  copy.set(INTERNAL, "true");
  if (own !== undefined) copy.replace(FORWARDED_FOR, [...before, own].join(","));
  if (policy.host !== undefined) copy.authority = policy.host;
  else if (policy.shadowHost) copy.authority = shadowHost(headers.authority ?? "");
  if (policy.edit !== undefined) {
    const { info, metadata, filterState } = stream;
    policy.edit(copy, { info, metadata, filterState, request: copy, response: undefined });
  }
  return copy;
}

/** Adds `-shadow` to a host name, before the port. */
export function shadowHost(host: string): string {
  const port = /:[0-9]+$/.exec(host);
  // The colons of a bare IPv6 address do not separate a port.
  if (port === null || (host.includes("::") && !host.includes("]"))) return `${host}-shadow`;
  return `${host.slice(0, port.index)}-shadow${port[0]}`;
}
