import { headerName, knownId, latin1Encode } from "@tsproxy/sdk";

/** Ids of pseudo fields in META; 0: a regular field. */
export const PSEUDO = {
  AUTHORITY: 1,
  METHOD: 2,
  PATH: 3,
  SCHEME: 4,
  STATUS: 5,
  PROTOCOL: 6,
  /** A name that begins with a colon and is not defined. */
  UNKNOWN: 7,
} as const;
/** Bits that describe a field: the id in KNOWN_NAMES, the id in PSEUDO, and flags for irregular names and values. */
export const META = {
  KNOWN: 0xff,
  PSEUDO_SHIFT: 8,
  PSEUDO: 0x700,
  MALFORMED_NAME: 0x800,
  MALFORMED_VALUE: 0x1000,
} as const;

/** The static table (RFC 7541 Appendix A). */
export const STATIC_FIELDS: readonly (readonly [string, string])[] = [
  [":authority", ""],
  [":method", "GET"],
  [":method", "POST"],
  [":path", "/"],
  [":path", "/index.html"],
  [":scheme", "http"],
  [":scheme", "https"],
  [":status", "200"],
  [":status", "204"],
  [":status", "206"],
  [":status", "304"],
  [":status", "400"],
  [":status", "404"],
  [":status", "500"],
  ["accept-charset", ""],
  ["accept-encoding", "gzip, deflate"],
  ["accept-language", ""],
  ["accept-ranges", ""],
  ["accept", ""],
  ["access-control-allow-origin", ""],
  ["age", ""],
  ["allow", ""],
  ["authorization", ""],
  ["cache-control", ""],
  ["content-disposition", ""],
  ["content-encoding", ""],
  ["content-language", ""],
  ["content-length", ""],
  ["content-location", ""],
  ["content-range", ""],
  ["content-type", ""],
  ["cookie", ""],
  ["date", ""],
  ["etag", ""],
  ["expect", ""],
  ["expires", ""],
  ["from", ""],
  ["host", ""],
  ["if-match", ""],
  ["if-modified-since", ""],
  ["if-none-match", ""],
  ["if-range", ""],
  ["if-unmodified-since", ""],
  ["last-modified", ""],
  ["link", ""],
  ["location", ""],
  ["max-forwards", ""],
  ["proxy-authenticate", ""],
  ["proxy-authorization", ""],
  ["range", ""],
  ["referer", ""],
  ["refresh", ""],
  ["retry-after", ""],
  ["server", ""],
  ["set-cookie", ""],
  ["strict-transport-security", ""],
  ["transfer-encoding", ""],
  ["user-agent", ""],
  ["vary", ""],
  ["via", ""],
  ["www-authenticate", ""],
];
export const STATIC_COUNT = STATIC_FIELDS.length;

const pseudoIds: Readonly<Record<string, number>> = {
  ":authority": PSEUDO.AUTHORITY,
  ":method": PSEUDO.METHOD,
  ":path": PSEUDO.PATH,
  ":scheme": PSEUDO.SCHEME,
  ":status": PSEUDO.STATUS,
  ":protocol": PSEUDO.PROTOCOL,
};

/** The PSEUDO id of a name that begins with a colon. */
export function pseudoId(name: string): number {
  return pseudoIds[name] ?? PSEUDO.UNKNOWN;
}

/** The fields as lines `name: value CRLF` in `staticBytes`; the arrays are by index, of which 0 is unused. */
const texts = STATIC_FIELDS.map(([name, value]) => `${name}: ${value}\r\n`);
export const staticBytes = latin1Encode(texts.join(""));
export const staticAt = new Int32Array(STATIC_COUNT + 1);
export const staticNameSize = new Int32Array(STATIC_COUNT + 1);
export const staticValueSize = new Int32Array(STATIC_COUNT + 1);
export const staticHash = new Int32Array(STATIC_COUNT + 1);
export const staticMeta = new Int32Array(STATIC_COUNT + 1);
/** Index of the first field with a regular name, by the name's hash. */
export const staticIndex = new Map<number, number>();

let at = 0;
for (let k = 0; k < STATIC_COUNT; k++) {
  const [name, value] = STATIC_FIELDS[k]!;
  const i = k + 1;
  staticAt[i] = at;
  staticNameSize[i] = name.length;
  staticValueSize[i] = value.length;
  if (name.startsWith(":")) staticMeta[i] = pseudoId(name) << META.PSEUDO_SHIFT;
  else {
    const { hash, bytes } = headerName(name);
    staticHash[i] = hash;
    staticMeta[i] = knownId(hash, bytes, 0, bytes.length);
    if (!staticIndex.has(hash)) staticIndex.set(hash, i);
  }
  at += texts[k]!.length;
}
