// Hot path: every stream that a sandboxed access log is told of becomes JSON here.
import type { AccessLogger, HeaderMap, LogEntry, SetupContext, Timer } from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import type { HeadGuard } from "./head-guard.ts";
import type { ParkedUse, ParkTable } from "./parked.ts";
import { ASK_TEXT_MAX, ParkedAsk } from "./parked-ask.ts";
import { infoText } from "./parked-facts.ts";
import { Mirror } from "./sandbox/mirror.ts";

/** A batch of entries is sent when it has this many chars, or this long after its first entry. */
const BATCH_CHARS = 32 * 1024;
const BATCH_MS = 20;
/** Chars of entries that may wait for a sandbox that is slow or gone; further entries are dropped. */
const WAITING_MAX = 1024 * 1024;
const ENTRY_MAX = ASK_TEXT_MAX - 2;

/**
 * Stands for a dropped-in access_log package: entries are sent in batches, and no stream waits for them. An entry that finds no
 * room, or whose batch the sandbox did not accept, is counted as `entries_dropped`.
 */
export class ParkedLogger implements AccessLogger {
  readonly #guard: HeadGuard | undefined;
  readonly #ask: ParkedAsk;
  readonly #timer: Timer;
  readonly #onDropped: (count: number) => void;
  #entries: string[] = [];
  #size = 0;
  /** Number of entries in the batch under way; 0: no batch is. */
  #underWay = 0;
  #onEnded: (() => void) | undefined = undefined;

  constructor(
    parked: ParkedUse,
    table: ParkTable,
    cx: Pick<SetupContext, "timer">,
    onDropped: (count: number) => void,
  ) {
    this.#guard = parked.guard;
    this.#onDropped = onDropped;
    this.#timer = cx.timer(() => this.#flush());
    this.#ask = new ParkedAsk(parked, table, (text) => this.#onAnswer(text));
  }

  log(entry: LogEntry): void {
    const text = entryText(entry, this.#guard);
    if (text.length > ENTRY_MAX || this.#size + text.length > WAITING_MAX) {
      this.#onDropped(1);
      return;
    }
    this.#entries.push(text);
    this.#size += text.length + 1;
    if (this.#underWay > 0) return;
    if (this.#size >= BATCH_CHARS) this.#flush();
    else if (!this.#timer.armed) this.#timer.arm(BATCH_MS);
  }

  /** Sends the waiting entries. Answers how many the sandbox has not accepted yet. */
  flush(): number {
    this.#flush();
    return this.#underWay + this.#entries.length;
  }

  #flush(): void {
    this.#timer.cancel();
    if (this.#underWay > 0 || this.#entries.length === 0) return;
    let count = 0;
    let size = 2;
    for (; count < this.#entries.length; count++) {
      const more = this.#entries[count]!.length + 1;
      if (size + more > ASK_TEXT_MAX) break;
      size += more;
    }
    const batch = this.#entries.splice(0, count);
    this.#size -= size - 2;
    this.#underWay = count;
    this.#ask.ask(`[${batch.join()}]`, NOTHING);
  }

  #onAnswer(text: string | undefined): void {
    if (text === undefined) this.#onDropped(this.#underWay);
    this.#underWay = 0;
    if (this.#size >= BATCH_CHARS || this.#onEnded !== undefined) this.#flush();
    else if (this.#entries.length > 0) this.#timer.arm(BATCH_MS);
    this.#endIfDone();
  }

  /** No further entries come; `onEnded` is called when the last one has been accepted or dropped. */
  end(onEnded: () => void): void {
    this.#onEnded = onEnded;
    this.#flush();
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#onEnded === undefined || this.#underWay > 0 || this.#entries.length > 0) return;
    const onEnded = this.#onEnded;
    this.#onEnded = undefined;
    this.#ask.release();
    onEnded();
  }
}

const NOTHING = new Uint8Array(0);

/** JSON in ASCII: a ToldEntry. */
function entryText(entry: LogEntry, guard: HeadGuard | undefined): string {
  const { request, response, trailers, metadata, filterState, downstream } = entry;
  let text = `{"info":${infoText(entry.info)}`;
  const add = (name: string, json: string | undefined): void => {
    if (json !== undefined && json !== "") text += `,"${name}":${json}`;
  };
  if (request !== undefined) {
    const { method, path, scheme } = request;
    add("request", JSON.stringify({ method, path, scheme, lines: linesOf(request, guard) }));
  }
  if (response !== undefined)
    add("response", JSON.stringify({ status: response.status, lines: linesOf(response, guard) }));
  if (trailers !== undefined) add("trailers", JSON.stringify(linesOf(trailers, guard)));
  if (metadata !== undefined)
    add("metadata", new Mirror().changes(metadata as Map<string, unknown>));
  if (filterState !== undefined)
    add("filterState", new Mirror().changes(filterState as Map<string, unknown>));
  if (downstream !== undefined) {
    const { listener, serverName, filterChainName, filterChainMetadata, tls } = downstream;
    const { ja3Fingerprint, ja4Fingerprint } = downstream;
    const names = { listener, serverName, ja3Fingerprint, ja4Fingerprint, filterChainName };
    const values = [...(downstream.metadata ?? [])];
    add("downstream", JSON.stringify({ ...names, filterChainMetadata, metadata: values, tls }));
  }
  for (const name of PLAIN) add(name, JSON.stringify(entry[name]));
  return ascii(`${text}}`);
}

/** Members of an entry that are JSON as they are. */
export const PLAIN = [
  "logType",
  "routeMetadata",
  "virtualHostMetadata",
  "serverName",
  "localReplyBody",
  "virtualClusterName",
  "filterChainName",
  "traceId",
  "spanId",
] as const;

function linesOf(map: HeaderMap, guard: HeadGuard | undefined): [string, string][] {
  return [...(guard?.shown(map) ?? map)];
}
