import type { Host, SetupContext } from "@tsproxy/sdk";
import { FAILURE, type UpstreamFailure } from "./upstream-failure.ts";

/** The same failure is logged again after this long at the earliest, with the number of times it has occurred. */
const QUIET_MS = 10_000;
/** Limit of different failures that are remembered; beyond it all are forgotten. */
const MAX_KINDS = 256;

interface Kind {
  saidAt: number;
  times: number;
}

/** Logs why attempts fail: the host, the phase, and the socket's error. */
export class FailureLog {
  readonly #cx: SetupContext;
  readonly #kinds = new Map<string, Kind>();

  constructor(cx: SetupContext) {
    this.#cx = cx;
  }

  /** Logs or counts a failure. `transport`: the socket's error text; "": none. */
  note(cluster: string, host: Host | undefined, failure: UpstreamFailure, transport: string): void {
    const key = `${cluster}|${host?.key ?? ""}|${failure.text}|${transport}`;
    const now = this.#cx.now();
    let kind = this.#kinds.get(key);
    if (kind === undefined) {
      if (this.#kinds.size >= MAX_KINDS) this.#kinds.clear();
      kind = { saidAt: now - QUIET_MS, times: 0 };
      this.#kinds.set(key, kind);
    }
    kind.times++;
    if (now - kind.saidAt < QUIET_MS) return;
    this.#cx.log.warn("an upstream failed", {
      cluster,
      host: host?.key,
      phase: phaseOf(failure),
      reason: failure.text,
      ...(transport !== "" && { transport }),
      times: kind.times,
    });
    kind.saidAt = now;
    kind.times = 0;
  }
}

function phaseOf(failure: UpstreamFailure): string {
  if (failure === FAILURE.connectionFailed || failure === FAILURE.connectionTimeout) {
    return "connecting";
  }
  return failure === FAILURE.overflow ? "waiting for a connection" : "before the response";
}
