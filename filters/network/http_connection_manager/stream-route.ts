// Hot path: one object a request, reused with its HcmStream.
import type { Clusters, Route } from "@tsproxy/sdk";
import type { ResolvedRoute } from "./route.ts";
import type { RouteSubject } from "./route-match.ts";
import type { RouteTable } from "./route-table.ts";
import { durationOf } from "./stream-duration.ts";
import type { Info } from "./stream-info.ts";
import type { StreamTimers } from "./stream-timers.ts";

/** The route of one stream: chosen when the head has been read, and again once a filter has cleared it. */
export class StreamRoute {
  /** Undefined: the request's head has not been read, or is refused. */
  table: RouteTable | undefined = undefined;
  readonly #subject: RouteSubject;
  readonly #info: Info;
  readonly #timers: StreamTimers;
  readonly #clusters: Clusters;
  #longestMs = 0;
  #isKnown = false;
  #route: ResolvedRoute | undefined = undefined;

  /** A choice is noted in `info`, and its route's limits are set in `timers`. */
  constructor(subject: RouteSubject, info: Info, timers: StreamTimers, clusters: Clusters) {
    this.#clusters = clusters;
    this.#subject = subject;
    this.#info = info;
    this.#timers = timers;
  }

  /** `longestMs`: the connection manager's `max_stream_duration`. */
  begin(longestMs: number): void {
    this.table = undefined;
    this.#longestMs = longestMs;
    this.clear();
  }

  clear(): void {
    this.#isKnown = false;
    this.#route = undefined;
  }

  /** The route, if it has been chosen. */
  get known(): ResolvedRoute | undefined {
    return this.#route;
  }

  resolve(): ResolvedRoute | undefined {
    return this.#isKnown ? this.#route : this.#choose();
  }

  #choose(): ResolvedRoute | undefined {
    this.#isKnown = true;
    const info = this.#info;
    const subject = this.#subject;
    const route = this.table?.find(subject);
    this.#route = route;
    info.routeName = route?.name ?? "";
    const host = route === undefined ? this.table?.virtualHostOf(subject.request)?.name : undefined;
    info.virtualHostName = route?.virtualHostName ?? host ?? "";
    const action = route?.action;
    const name = action?.type === "route" ? (action.cluster ?? "") : "";
    // As in Envoy, logs do not name a cluster that is not there.
    info.cluster = name === "" ? undefined : this.#clusters.get(name);
    info.clusterName = info.cluster === undefined ? "" : name;
    if (action?.type !== "route") return route;
    this.#timers.limitIdle(action);
    const duration = action.policies?.streamDuration;
    if (duration !== undefined)
      this.#timers.limitDuration(durationOf(duration, subject.request, this.#longestMs));
    return route;
  }

  /** The route whose header rules edit a local reply: as in Envoy, one that would have forwarded the request; or none. */
  forwarding(): Route | undefined {
    const route = this.resolve();
    return route?.action.type === "route" ? route : undefined;
  }

  get virtualHostMetadata(): Readonly<Record<string, unknown>> | undefined {
    if (this.#route !== undefined) return this.#route.virtualHostMetadata;
    return this.#info.virtualHostName === ""
      ? undefined
      : this.table?.virtualHostOf(this.#subject.request)?.metadata;
  }
}
