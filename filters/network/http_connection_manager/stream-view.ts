// Hot path: one object for each filter of each stream.
import {
  type DownstreamConnection,
  type HeaderMap,
  type HttpStream,
  type InternalRedirects,
  type Reply,
  RequestHeaders,
  type Responder,
  type ResponseHeaders,
  type Route,
  type RouteSetups,
  type StreamInfo,
} from "@tsproxy/sdk";
import type { FilterSlot } from "./runtime.ts";
import type { HcmStream } from "./stream.ts";
import { Info } from "./stream-info.ts";

const NONE: readonly unknown[] = [];

/**
 * A stream as one filter sees it. HcmStream objects are reused when their stream has ended; a view is not, so a filter that still
 * holds it cannot affect the next stream. Nor does it keep that one alive, and with it the code and config of a later generation: old
 * code whose filters wait to be reused would keep all generations after it.
 */
export class StreamView implements HttpStream, Responder {
  /** Undefined: the stream has ended. */
  #stream: HcmStream | undefined;
  readonly #slot: FilterSlot;
  readonly #routes: RouteSetups | undefined;

  constructor(stream: HcmStream, slot: FilterSlot, routes: RouteSetups | undefined) {
    this.#stream = stream;
    this.#slot = slot;
    this.#routes = routes;
  }

  end(): void {
    this.#stream = undefined;
  }

  get filterName(): string {
    return this.#slot.name;
  }

  get id(): number {
    return this.#stream?.id ?? 0;
  }
  get info(): StreamInfo {
    return this.#stream === undefined ? new Info() : this.#stream.info;
  }
  get request(): RequestHeaders {
    return this.#stream === undefined ? new RequestHeaders() : this.#stream.headers;
  }
  get response(): ResponseHeaders | undefined {
    return this.#stream?.response;
  }
  get route(): Route | undefined {
    return this.#stream?.route;
  }
  clearRoute(): void {
    this.#stream?.clearRoute();
  }
  get routeConfig(): unknown {
    const config = this.#stream?.route?.filterConfig(this.#slot.name);
    return config === undefined || this.#routes === undefined ? config : this.#routes.one(config);
  }
  get isOverridden(): boolean {
    return this.#slot.isOverridden;
  }
  get routeConfigs(): readonly unknown[] {
    const configs = this.#stream?.route?.filterConfigs(this.#slot.name);
    if (configs === undefined || configs.length === 0) return NONE;
    return this.#routes === undefined ? configs : this.#routes.all(configs);
  }
  get bodyLimit(): number {
    return this.#stream?.bodyLimit ?? 0;
  }
  get metadata(): Map<string, Record<string, unknown>> {
    return this.#stream === undefined ? new Map() : this.#stream.metadata;
  }
  get filterState(): Map<string, unknown> {
    return this.#stream === undefined ? new Map() : this.#stream.filterState;
  }
  get hasFilterState(): boolean {
    return this.#stream?.hasFilterState === true;
  }
  get connectionState(): Map<string, unknown> {
    return this.#stream === undefined ? new Map() : this.#stream.connectionState;
  }
  get serverName(): string {
    return this.#stream?.serverName ?? "";
  }
  /** The same as `downstreamConnection`, by the name that log formats use. */
  get downstream(): DownstreamConnection | undefined {
    return this.downstreamConnection;
  }
  get downstreamConnection(): DownstreamConnection | undefined {
    return this.#stream?.downstream;
  }
  get virtualClusterName(): string | undefined {
    return this.#stream?.virtualClusterName;
  }
  get routeMetadata(): Readonly<Record<string, unknown>> | undefined {
    return this.#stream?.routeMetadata;
  }
  get virtualHostMetadata(): Readonly<Record<string, unknown>> | undefined {
    return this.#stream?.virtualHostMetadata;
  }
  get schemeMatchesUpstream(): boolean {
    return this.#stream?.schemeMatchesUpstream === true;
  }
  get internalRedirects(): InternalRedirects | undefined {
    return this.#stream?.internalRedirects;
  }
  set internalRedirects(redirects: InternalRedirects | undefined) {
    if (this.#stream !== undefined) this.#stream.internalRedirects = redirects;
  }
  get responder(): Responder {
    return this;
  }
  sleep(ms: number): Promise<void> {
    return this.#stream === undefined ? new Promise(() => {}) : this.#stream.sleep(ms);
  }

  sendInformational(headers: ResponseHeaders): void {
    this.#stream?.sendInformational(headers);
  }
  sendHeaders(headers: ResponseHeaders, endStream: boolean): void {
    this.#stream?.sendHeaders(headers, endStream);
  }
  sendBody(memory: Uint8Array, at: number, end: number, endStream: boolean): void {
    this.#stream?.sendBody(memory, at, end, endStream);
  }
  sendTrailers(trailers: HeaderMap): void {
    this.#stream?.sendTrailers(trailers);
  }
  sendReply(reply: Reply, editedBy?: Route): void {
    this.#stream?.sendReply(reply, true, editedBy);
  }
  reset(details: string, flag: string): void {
    this.#stream?.reset(details, flag);
  }
  pauseRequest(paused: boolean): void {
    this.#stream?.pauseRequest(paused);
  }
  recreate(response: ResponseHeaders, body: Uint8Array): boolean {
    return this.#stream?.recreate(response, body) === true;
  }
}
