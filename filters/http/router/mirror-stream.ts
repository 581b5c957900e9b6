import {
  type Cluster,
  type HttpStream,
  newStreamInfo,
  type RequestHeaders,
  type Responder,
  type SetupContext,
  type StreamInfo,
  type Timer,
} from "@tsproxy/sdk";
import { NO_RESPONDER } from "./upstream-view.ts";

/** A mirrored copy as a stream of its own. As in Envoy it has no client, no route and no metadata, and its own times. */
export class MirrorStream implements HttpStream {
  readonly id = 0;
  readonly info: StreamInfo;
  readonly request: RequestHeaders;
  readonly response = undefined;
  readonly route = undefined;
  readonly routeConfig = undefined;
  readonly routeConfigs: readonly unknown[] = [];
  readonly metadata = new Map<string, Record<string, unknown>>();
  readonly filterState = new Map<string, unknown>();
  readonly connectionState = new Map<string, unknown>();
  readonly responder: Responder = NO_RESPONDER;
  readonly #cx: SetupContext;
  readonly #timers: Timer[] = [];

  constructor(cx: SetupContext, cluster: Cluster, request: RequestHeaders) {
    this.#cx = cx;
    this.request = request;
    this.info = newStreamInfo({
      startTime: Date.now(),
      startedAt: cx.now(),
      clusterName: cluster.name,
      cluster,
    });
  }

  clearRoute(): void {}

  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = this.#cx.timer(resolve);
      timer.arm(ms);
      this.#timers.push(timer);
    });
  }

  end(): void {
    for (const timer of this.#timers) timer.cancel();
  }
}
