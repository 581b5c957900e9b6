// Hot path: `scanPath` looks at every byte of every path once; the rest runs only for paths that need it.
import type { RequestHeaders } from "@tsproxy/sdk";

/** What a scan has found, as bits. */
export const FOUND = {
  FRAGMENT: 1,
  PERCENT: 2,
  BACKSLASH: 4,
  SLASHES: 8,
  DOT: 16,
  UNSAFE: 32,
} as const;

/** Bytes that normalizing a path escapes: control characters, space, all beyond ASCII, and some signs. */
const UNSAFE = /[^!-~]|["<>^`{|}]/;
const ALL_UNSAFE = new RegExp(UNSAFE, "g");
/** For each byte: 0 if it is of no interest in a path, 1 if it is one of `#%\\?/.`, 2 if it is UNSAFE. */
const KIND = Uint8Array.from({ length: 256 }, (_, byte) => {
  const char = String.fromCharCode(byte);
  return "#%\\?/.".includes(char) ? 1 : UNSAFE.test(char) ? 2 : 0;
});

/**
 * Scans a path for what may have to be normalized: bits of FOUND, 0 for none. SLASHES: two in a row; DOT: a segment that begins
 * with a dot; UNSAFE: a byte to be escaped; FRAGMENT: a `#`, which is an error, is returned alone, and counts in a query too.
 */
export function scanPath(headers: RequestHeaders): number {
  if (headers.pathEdited) return scanText(headers.path);
  const memory = headers.memory;
  const end = headers.base + headers.pathEnd;
  let found = 0;
  let before = 0;
  let query = false;
  for (let k = headers.base + headers.pathAt; k < end; k++) {
    const c = memory[k]!;
    const kind = KIND[c]!;
    if (kind === 0) {
      before = c;
      continue;
    }
    if (c === 35) return FOUND.FRAGMENT;
    if (query) continue;
    if (kind === 2) found |= FOUND.UNSAFE;
    else if (c === 37) found |= FOUND.PERCENT;
    else if (c === 92) found |= FOUND.BACKSLASH;
    else if (c === 63) query = true;
    else if (before === 47) {
      if (c === 47) found |= FOUND.SLASHES;
      else if (c === 46) found |= FOUND.DOT;
    }
    before = c;
  }
  return found;
}

function scanText(path: string): number {
  if (path.includes("#")) return FOUND.FRAGMENT;
  const at = path.indexOf("?");
  const plain = at < 0 ? path : path.slice(0, at);
  return (
    (plain.includes("%") ? FOUND.PERCENT : 0) |
    (plain.includes("\\") ? FOUND.BACKSLASH : 0) |
    (plain.includes("//") ? FOUND.SLASHES : 0) |
    (plain.includes("/.") ? FOUND.DOT : 0) |
    (UNSAFE.test(plain) ? FOUND.UNSAFE : 0)
  );
}

const ESCAPED_SLASH = /%2f|%5c/i;

export function hasEscapedSlash(path: string): boolean {
  return ESCAPED_SLASH.test(path);
}

export function unescapeSlashes(path: string): string {
  return path.replace(/%2f/gi, "/").replace(/%5c/gi, "\\");
}

export function mergeSlashes(path: string): string {
  // As in Envoy, a path of nothing but slashes becomes two: the first and the last, with no segment between.
  return /^\/{2,}$/.test(path) ? "//" : path.replace(/\/{2,}/g, "/");
}

/**
 * Normalizes a path as Envoy does (RFC 3986 §6.2.2): decodes escapes of unreserved characters, escapes UNSAFE bytes, turns
 * backslashes into slashes and removes dot segments. Other escapes stay. Undefined: the path has `%00`, which is an error.
 */
export function normalizePath(path: string): string | undefined {
  if (path.includes("%00")) return undefined;
  const decoded = path
    .replace(/%([0-9a-fA-F]{2})/g, (all, hex: string) => {
      const char = String.fromCharCode(Number.parseInt(hex, 16));
      return /[A-Za-z0-9\-._~]/.test(char) ? char : all;
    })
    .replaceAll("\\", "/")
    .replace(ALL_UNSAFE, escaped);
  const absolute = decoded.startsWith("/") ? decoded : `/${decoded}`;
  return absolute.includes("/.") ? removeDotSegments(absolute) : absolute;
}

function escaped(char: string): string {
  return `%${char.charCodeAt(0).toString(16).toUpperCase().padStart(2, "0")}`;
}

/** RFC 3986 §5.2.4; an empty segment counts as a segment. */
function removeDotSegments(path: string): string {
  const kept: string[] = [];
  const segments = path.slice(1).split("/");
  for (const [k, segment] of segments.entries()) {
    const last = k === segments.length - 1;
    if (segment === "..") kept.pop();
    else if (segment !== ".") {
      kept.push(segment);
      continue;
    }
    if (last) kept.push("");
  }
  return `/${kept.join("/")}`;
}
