import { latin1Encode } from "@tsproxy/sdk";

/** Of a certificate's DER (RFC 5280 §4.1) what `Certificate` does not tell. Whoever sent it wrote it: what is broken reads as empty. */
export interface CertificateParts {
  /** Lower-case hex. */
  readonly serial: string;
  /** Object identifiers of its extensions, in their order. */
  readonly extensions: readonly string[];
  readonly der: Uint8Array;
}

/** As browsers have it, in every isolate. */
declare function atob(text: string): string;

const NOTHING: CertificateParts = { serial: "", extensions: [], der: new Uint8Array(0) };
const EXTENSIONS_MAX = 64;

export function partsOfPem(pem: string): CertificateParts {
  const base64 = /-----BEGIN CERTIFICATE-----([\w+/=\s]*)-----END/.exec(pem)?.[1];
  if (base64 === undefined) return NOTHING;
  try {
    return partsOf(latin1Encode(atob(base64.replace(/\s/g, ""))));
  } catch {
    return NOTHING;
  }
}

interface Item {
  readonly tag: number;
  readonly at: number;
  readonly end: number;
}

const TAG = { INTEGER: 0x02, OID: 0x06, VERSION: 0xa0, EXTENSIONS: 0xa3 } as const;

function partsOf(der: Uint8Array): CertificateParts {
  const body = inside(der, first(der, first(der, { tag: 0, at: 0, end: der.length })));
  const serial = body.find(({ tag }) => tag === TAG.INTEGER);
  const wrapped = body.find(({ tag }) => tag === TAG.EXTENSIONS);
  const extensions = wrapped === undefined ? [] : inside(der, first(der, wrapped));
  return {
    serial: serial === undefined ? "" : hex(der, serial),
    extensions: extensions
      .slice(0, EXTENSIONS_MAX)
      .map((extension) => oidText(der, first(der, extension))),
    der,
  };
}

/** The item at `at`; it must end within `end`. Throws RangeError. */
function itemAt(der: Uint8Array, at: number, end: number): Item {
  const tag = der[at]!;
  let size = der[at + 1]!;
  let from = at + 2;
  if (size > 0x80 && size <= 0x84) {
    const bytes = size - 0x80;
    size = 0;
    for (let k = 0; k < bytes; k++) size = size * 256 + der[from++]!;
  }
  if (!(from + size <= end)) throw new RangeError("an item of DER goes beyond its parent");
  return { tag, at: from, end: from + size };
}

const first = (der: Uint8Array, { at, end }: Item): Item => itemAt(der, at, end);

function inside(der: Uint8Array, parent: Item): Item[] {
  const items: Item[] = [];
  for (let { at } = parent; at < parent.end && items.length < EXTENSIONS_MAX; ) {
    const item = itemAt(der, at, parent.end);
    items.push(item);
    at = item.end;
  }
  return items;
}

/** As OpenSSL prints a number: without the zero that only says it is positive. */
function hex(der: Uint8Array, { at, end }: Item): string {
  const from = der[at] === 0 && end - at > 1 ? at + 1 : at;
  return hexOf(der.subarray(from, end));
}

export const hexOf = (bytes: Uint8Array): string =>
  Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function oidText(der: Uint8Array, { tag, at, end }: Item): string {
  if (tag !== TAG.OID) return "";
  const parts: number[] = [];
  let part = 0;
  for (let k = at; k < end; k++) {
    part = part * 128 + (der[k]! & 0x7f);
    if (der[k]! >= 0x80) continue;
    if (parts.length === 0) parts.push(Math.min(2, Math.floor(part / 40)));
    parts.push(parts.length === 1 ? part - parts[0]! * 40 : part);
    part = 0;
  }
  return parts.join(".");
}
