import {
  type CodecFactory,
  containsInOrder,
  type HealthEvents,
  type HealthSession,
  type HealthTarget,
  HttpProbe,
  type HttpProbeAnswer,
  headerName,
  type RequestHeaders,
  type Slot,
} from "@tsproxy/sdk";

const IMMEDIATE_FAIL = headerName("x-envoy-immediate-health-check-fail");
const DEGRADED = headerName("x-envoy-degraded");
const CHECKED_CLUSTER = headerName("x-envoy-upstream-healthchecked-cluster");

/** What a cluster's checks ask, and how they judge the answer. */
export interface HttpCheck {
  readonly codec: Slot<CodecFactory>;
  readonly receive: readonly Uint8Array[];
  readonly send: Uint8Array | undefined;
  readonly bodyBytes: number;
  expected(status: number): boolean;
  retriable(status: number): boolean;
  /** `service_name_matcher`; undefined: the answer may be from any service. */
  readonly serviceName: ((name: string) => boolean) | undefined;
  head(target: HealthTarget): RequestHeaders;
}

export class HttpSession implements HealthSession {
  readonly #check: HttpCheck;
  readonly #target: HealthTarget;
  readonly #events: HealthEvents;
  readonly #probe: HttpProbe;

  constructor(check: HttpCheck, target: HealthTarget, events: HealthEvents) {
    this.#check = check;
    this.#target = target;
    this.#events = events;
    this.#probe = new HttpProbe(
      target,
      check.codec,
      check.bodyBytes,
      (answer) => this.#onAnswer(answer),
      () => events.onFailure({ type: "network" }),
    );
  }

  check(): void {
    this.#probe.ask(this.#check.head(this.#target), this.#check.send);
  }
  onTimeout(): void {
    this.#probe.cancel();
  }
  close(): void {
    this.#probe.cancel();
  }

  #onAnswer({ headers, body }: HttpProbeAnswer): void {
    const { receive, serviceName } = this.#check;
    const { status } = headers;
    const fail = (retriable: boolean, immediate: boolean): void =>
      this.#events.onFailure({ type: "no", retriable, immediate, status });
    if (receive.length > 0 && !containsInOrder(body, receive)) {
      fail(false, headers.has(IMMEDIATE_FAIL));
    } else if (!this.#check.expected(status)) {
      fail(this.#check.retriable(status), headers.has(IMMEDIATE_FAIL));
    } else if (
      serviceName !== undefined &&
      !this.#isOurs(serviceName, headers.get(CHECKED_CLUSTER))
    ) {
      fail(false, false);
    } else this.#events.onHealthy({ degraded: headers.has(DEGRADED) });
  }

  #isOurs(serviceName: (name: string) => boolean, name: string | undefined): boolean {
    this.#target.onClusterVerified();
    return serviceName(name ?? "");
  }
}
