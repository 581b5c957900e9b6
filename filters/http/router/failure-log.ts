import type { Host, SetupContext } from "@tsproxy/sdk";
import { FAILURE, type UpstreamFailure } from "./upstream-failure.ts";

/** The same failure is said again after this long, with how often it has been seen. */
const QUIET_MS = 10_000;
/** Kinds of failures that are told apart. */
const MAX_KINDS = 256;

interface Kind {
  saidAt: number;
  times: number;
}

/** Says why requests fail: which host, in which phase, and what the socket had to say. */
export class FailureLog {
  readonly #cx: SetupContext;
  readonly #kinds = new Map<string, Kind>();

  constructor(cx: SetupContext) {
    this.#cx = cx;
  }

  /** `transport`: the socket's own word, "" if it had none. */
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
