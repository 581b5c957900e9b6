import { type HeaderMap, latin1Decode, type ResponseHeaders, SPAN, tokenByte } from "@tsproxy/sdk";

/*
 * Envoy's `header_key_format`. Heads are always parsed and written in lower case; if another case is configured, the names in
 * the finished head are overwritten, so that other connections have no cost.
 */
const CR = 13;
const LF = 10;
const COLON = 58;

/** All names of a head, those in lower case too: others are written in proper case. */
class NamesBesideProper extends Map<string, string> {}

/**
 * Sets `originalNames` to names in the peer's case, by lower-case name. `raw`: the head's bytes before parsing. `othersProper`: names
 * that the head does not have are written in proper case.
 */
export function keepNames(headers: HeaderMap, raw: Uint8Array, othersProper: boolean): void {
  const { spans } = headers;
  let kept: Map<string, string> | undefined = othersProper ? new NamesBesideProper() : undefined;
  for (let i = 0; i < headers.count * SPAN; i += SPAN) {
    const name = latin1Decode(raw, spans[i]!, spans[i + 1]!);
    const lower = name.toLowerCase();
    if ((name === lower && !othersProper) || kept?.has(lower) === true) continue;
    kept ??= new Map();
    kept.set(lower, name);
  }
  headers.originalNames = kept;
}

const REASON_AT = "HTTP/1.1 200 ".length;

/** Sets `reason` to what the status line says behind the status, unless that is nothing. */
export function keepReason(headers: ResponseHeaders): void {
  const { memory, base } = headers;
  const at = base + REASON_AT;
  let end = base;
  while (memory[end] !== CR && memory[end] !== LF) end++;
  if (end > at) headers.reason = latin1Decode(memory, at, end);
}

/** Overwrites the names of the head at [at, end), after its first line: from `names`, or if undefined in proper case. */
export function recase(
  memory: Uint8Array,
  at: number,
  end: number,
  names: ReadonlyMap<string, string> | undefined,
): void {
  let q = nextLine(memory, at, end);
  while (q < end && memory[q] !== CR) {
    let nameEnd = q;
    while (nameEnd < end && memory[nameEnd] !== COLON) nameEnd++;
    if (names === undefined) properCase(memory, q, nameEnd);
    else {
      const name = names.get(latin1Decode(memory, q, nameEnd));
      if (name !== undefined) {
        for (let k = 0; k < name.length; k++) memory[q + k] = name.charCodeAt(k);
      } else if (names instanceof NamesBesideProper) properCase(memory, q, nameEnd);
    }
    q = nextLine(memory, nameEnd, end);
  }
}

function nextLine(memory: Uint8Array, at: number, end: number): number {
  let q = at;
  while (q < end && memory[q] !== LF) q++;
  return q + 1;
}

/** Capitalizes the first letter, and each letter after a byte that is neither a letter nor a digit. */
function properCase(memory: Uint8Array, at: number, end: number): void {
  let capital = true;
  for (let k = at; k < end; k++) {
    const c = memory[k]!;
    const isLetter = c >= 97 && c <= 122;
    if (capital && isLetter) memory[k] = c - 32;
    capital = !isLetter && !(c >= 48 && c <= 57) && tokenByte[c] !== 0;
  }
}
