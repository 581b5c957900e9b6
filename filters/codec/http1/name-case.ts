import { type HeaderMap, latin1Decode, SPAN, tokenByte } from "@tsproxy/sdk";

/*
 * Envoy's `header_key_format`. Heads are parsed and written in lower case; where a connection wants other letters, the names in
 * the finished bytes are written over, so that nobody else pays for it.
 */
const CR = 13;
const LF = 10;
const COLON = 58;

/** Keeps the names as the peer has written them. `raw`: the head's bytes before they were parsed. */
export function keepNames(headers: HeaderMap, raw: Uint8Array): void {
  const { spans } = headers;
  let kept: Map<string, string> | undefined;
  for (let i = 0; i < headers.count * SPAN; i += SPAN) {
    const name = latin1Decode(raw, spans[i]!, spans[i + 1]!);
    const lower = name.toLowerCase();
    if (name === lower || kept?.has(lower) === true) continue;
    kept ??= new Map();
    kept.set(lower, name);
  }
  headers.originalNames = kept;
}

/** Writes over the names of the head lines at [at, end): as the peer had them, or with capitals. The first line is no field. */
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
      }
    }
    q = nextLine(memory, nameEnd, end);
  }
}

function nextLine(memory: Uint8Array, at: number, end: number): number {
  let q = at;
  while (q < end && memory[q] !== LF) q++;
  return q + 1;
}

/** A letter at the beginning, and behind whatever is neither letter nor digit, becomes a capital. */
function properCase(memory: Uint8Array, at: number, end: number): void {
  let capital = true;
  for (let k = at; k < end; k++) {
    const c = memory[k]!;
    const isLetter = c >= 97 && c <= 122;
    if (capital && isLetter) memory[k] = c - 32;
    capital = !isLetter && !(c >= 48 && c <= 57) && tokenByte[c] !== 0;
  }
}
