import { DIFFERENCES } from "./http1-differences.ts";
import type { GeneratedCase } from "./http1-generate.ts";
import { type Message, type Outcome, parseLlhttp, parseOurs } from "./http1-parsers.ts";

/** Where the two parsers part: at the first message on which they do not agree. */
export interface Difference {
  readonly kind: "request" | "response";
  /** Ours or llhttp's: the other took the message. `both`: both took it, and understood different things. */
  readonly refusedBy: "ours" | "llhttp" | "both";
  /** Of `both`: the field of Message, or `end`. */
  readonly field: string;
  /** The bytes from the start of that message on. */
  readonly wire: string;
  readonly ours: Outcome;
  readonly theirs: Outcome;
  /** As each understood the message, if it came so far. */
  readonly ourMessage: Message | undefined;
  readonly theirMessage: Message | undefined;
}

/** Ends whatever may be unfinished, for a parser may report an error later than another without being wrong. */
const PADDING = "\r\n\r\n\r\n0\r\n\r\n";
const FIELDS = ["start", "minor", "headers", "body", "trailers", "keepAlive"] as const;

/** Undefined: both say the same of these bytes. */
export function compare({ kind, wire, cuts }: GeneratedCase): Difference | undefined {
  const found = compareOnce(kind, wire, cut(wire, cuts));
  if (found === undefined) return undefined;
  return compareOnce(kind, wire + PADDING, [...(wire + PADDING)]) === undefined
    ? undefined
    : { ...found, wire: wire.slice(startOf(kind, wire, found)) };
}

/** The name of the listed difference that this is; undefined: it is not listed. */
export function nameOf(difference: Difference): string | undefined {
  return DIFFERENCES.find((listed) => listed.isThis(difference))?.name;
}

function cut(wire: string, cuts: readonly number[]): string[] {
  const pieces: string[] = [];
  let at = 0;
  for (const to of [...cuts, wire.length]) {
    pieces.push(wire.slice(at, to));
    at = to;
  }
  return pieces;
}

function compareOnce(
  kind: "request" | "response",
  wire: string,
  pieces: readonly string[],
): Difference | undefined {
  const ours = parseOurs(kind, pieces);
  const theirs = parseLlhttp(kind, wire);
  for (let k = 0; ; k++) {
    const ourMessage = ours.messages[k];
    const theirMessage = theirs.messages[k];
    const difference = (refusedBy: Difference["refusedBy"], field = ""): Difference => {
      return { kind, refusedBy, field, wire, ours, theirs, ourMessage, theirMessage };
    };
    const ourError = ours.end === "error" && ourMessage?.complete !== true;
    const theirError = theirs.end === "error" && theirMessage?.complete !== true;
    if (ourError && theirError) return undefined;
    if (ourError) return difference("ours");
    if (theirError) return difference("llhttp");
    if (isTunnelAt(ours, k) !== isTunnelAt(theirs, k)) return difference("both", "end");
    if (ourMessage === undefined || theirMessage === undefined) {
      return ours.end === theirs.end && ourMessage === theirMessage
        ? undefined
        : difference("both", "end");
    }
    for (const field of FIELDS) {
      if (field === "keepAlive" && (isTunnelAt(ours, k) || !ourMessage.complete)) continue;
      if (`${ourMessage[field]}` !== `${theirMessage[field]}`) return difference("both", field);
    }
    if (ourMessage.complete !== theirMessage.complete) return difference("both", "complete");
    if (!ourMessage.complete)
      return ours.end === theirs.end ? undefined : difference("both", "end");
  }
}

function isTunnelAt(outcome: Outcome, index: number): boolean {
  return outcome.end === "tunnel" && index === outcome.messages.length - 1;
}

/** Where the message begins that they differ on. */
function startOf(kind: "request" | "response", wire: string, difference: Difference): number {
  const { ourMessage, theirMessage, ours, theirs } = difference;
  const at =
    ourMessage !== undefined
      ? ours.messages.indexOf(ourMessage)
      : theirMessage !== undefined
        ? theirs.messages.indexOf(theirMessage)
        : Math.min(ours.messages.length, theirs.messages.length);
  return at === 0 ? 0 : (parseOurs(kind, [...wire]).ends[at - 1] ?? 0);
}
