// Hot path: browsers send a Referer with nearly every request.

/**
 * Classes of bytes, as bits: of a host name; of the first segment of a relative reference, and of its rest; of a scheme; of an
 * IPv6 address; of what follows an authority.
 */
const HOST = 1;
const SEGMENT = 2;
const REST = 4;
const SCHEME = 8;
const ADDRESS = 16;
const ABSOLUTE_REST = 32;
const classes = new Uint8Array(256);
function mark(bits: number, chars: string): void {
  for (const char of chars) classes[char.charCodeAt(0)]! |= bits;
}
const LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const DIGITS = "0123456789";
mark(HOST | SEGMENT | REST, `${LETTERS}${DIGITS}._-`);
mark(SEGMENT | REST, "~!$&'()*+,;=@%?");
mark(REST, ":/");
mark(SCHEME, `${LETTERS}-`);
mark(ADDRESS, `${DIGITS}abcdefABCDEF:.`);
for (let c = 0x21; c < 0x7f; c++) if (c !== 0x23) classes[c]! |= ABSOLUTE_REST;

const COLON = 58;
const SLASH = 47;
const QUESTION = 63;
const PORT_MAX = 65_535;

function skip(memory: Uint8Array, at: number, end: number, bits: number): number {
  let k = at;
  while (k < end && (classes[memory[k]!]! & bits) !== 0) k++;
  return k;
}

/**
 * Whether the bytes are a valid Referer (RFC 9110 §10.1.3): a URI or a relative reference (RFC 3986 §4.2), without user
 * information or fragment. Differs from the RFCs where Envoy's parser does.
 */
export function isReferer(memory: Uint8Array, at: number, end: number): boolean {
  const colon = skip(memory, at, end, SCHEME);
  if (
    colon > at &&
    colon + 2 < end &&
    memory[at] !== 45 &&
    memory[colon] === COLON &&
    memory[colon + 1] === SLASH &&
    memory[colon + 2] === SLASH
  )
    return isAuthorityAndRest(memory, colon + 3, end);
  const slash = skip(memory, at, end, SEGMENT);
  return slash === end || (memory[slash] === SLASH && skip(memory, slash, end, REST) === end);
}

function isAuthorityAndRest(memory: Uint8Array, at: number, end: number): boolean {
  let k: number;
  if (memory[at] === 91) {
    k = skip(memory, at + 1, end, ADDRESS);
    if (k === at + 1 || memory[k] !== 93 || k === end) return false;
    k++;
  } else {
    k = skip(memory, at, end, HOST);
    if (k === at) return false;
  }
  if (k < end && memory[k] === COLON) {
    const from = ++k;
    let port = 0;
    for (; k < end && memory[k]! >= 48 && memory[k]! <= 57; k++) {
      port = port * 10 + memory[k]! - 48;
      if (k - from === 5) return false;
    }
    if (k === from || port > PORT_MAX) return false;
  }
  if (k === end) return true;
  if (memory[k] !== SLASH && memory[k] !== QUESTION) return false;
  return skip(memory, k, end, ABSOLUTE_REST) === end;
}
