// Hot path: edits of request lines (test/bench/sandbox.ts).
import { tokenByte } from "@tsproxy/sdk";

/**
 * What a sandboxed filter may make of a request line and its Host: the same rule tells the filter what is wrong, and keeps out what
 * its isolate sends nevertheless. Each function answers what is wrong; undefined: nothing is.
 */

const METHOD_MAX = 64;

/** `before`: the method that the request has now. */
export function wrongMethod(method: string, before: string): string | undefined {
  let isToken = method !== "" && method.length <= METHOD_MAX;
  for (let k = 0; isToken && k < method.length; k++) isToken = isTokenChar(method.charCodeAt(k));
  if (!isToken)
    return `:method cannot be ${JSON.stringify(method)}: write letters, ${METHOD_MAX} at most`;
  if (method === before || (!isFixed(method) && !isFixed(before))) return undefined;
  return `:method cannot change from "${before}" to "${method}": the answer to HEAD has no body, and CONNECT makes a tunnel`;
}

const isTokenChar = (c: number): boolean => c < 256 && tokenByte[c] !== 0;
const isFixed = (method: string): boolean => method === "HEAD" || method === "CONNECT";

/** Origin-form or `*`, without what could end the request line (RFC 9112 §3.2). */
export function wrongPath(path: string): string | undefined {
  let isTarget = path.charCodeAt(0) === 47 || path === "*";
  for (let k = 0; isTarget && k < path.length; k++) {
    const c = path.charCodeAt(k);
    isTarget = c > 32 && c !== 127 && c !== 35;
  }
  if (isTarget) return undefined;
  return `:path cannot be ${JSON.stringify(path)}: begin with "/", and write encodeURI(…) for white space, encodeURIComponent(…) for "#"`;
}

const authorityByte = new Uint8Array(128);
for (const c of "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~:[]%!$&'()*+;=")
  authorityByte[c.charCodeAt(0)] = 1;

export function wrongAuthority(authority: string): string | undefined {
  let isAuthority = authority !== "";
  for (let k = 0; isAuthority && k < authority.length; k++)
    isAuthority = authorityByte[authority.charCodeAt(k)] === 1;
  if (isAuthority) return undefined;
  return `host cannot be ${JSON.stringify(authority)}: write a name or an address, with or without a port`;
}
