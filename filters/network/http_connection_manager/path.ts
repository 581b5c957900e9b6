// Hot path: `scanPath` looks at every byte of every path once; what follows runs only for paths that need it.
import type { RequestHeaders } from "@tsproxy/sdk";

/** What a scan has found; bits. */
export const FOUND = { FRAGMENT: 1, PERCENT: 2, BACKSLASH: 4, SLASHES: 8, DOT: 16 } as const;

/** The path may need work: `PERCENT`, `BACKSLASH`, two slashes, or a segment that begins with a dot; a fragment is an error. */
export function scanPath(headers: RequestHeaders): number {
  if (headers.pathEdited) return scanText(headers.path);
  const memory = headers.memory;
  const end = headers.base + headers.pathEnd;
  let found = 0;
  let before = 0;
  let query = false;
  for (let k = headers.base + headers.pathAt; k < end; k++) {
    const c = memory[k]!;
    if (c === 35) return FOUND.FRAGMENT;
    if (query) continue;
    if (c === 37) found |= FOUND.PERCENT;
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
    (plain.includes("/.") ? FOUND.DOT : 0)
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
  // Envoy puts segments together between a first slash and a last one, which are two where there is no segment.
  return /^\/{2,}$/.test(path) ? "//" : path.replace(/\/{2,}/g, "/");
}

/**
 * RFC 3986 §6.2.2 as Envoy does it: escapes of unreserved characters are decoded, a backslash is a slash, dot segments go. Other
 * escapes stay as they are written. Undefined: `%00`, which no path may have.
 */
export function normalizePath(path: string): string | undefined {
  if (path.includes("%00")) return undefined;
  const decoded = path
    .replace(/%([0-9a-fA-F]{2})/g, (escaped, hex: string) => {
      const char = String.fromCharCode(Number.parseInt(hex, 16));
      return /[A-Za-z0-9\-._~]/.test(char) ? char : escaped;
    })
    .replaceAll("\\", "/");
  const absolute = decoded.startsWith("/") ? decoded : `/${decoded}`;
  return absolute.includes("/.") ? removeDotSegments(absolute) : absolute;
}

/** RFC 3986 §5.2.4; an empty segment is a segment like any other. */
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
