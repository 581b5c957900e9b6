import { headerName, type RequestHeaders } from "./headers.ts";

const COOKIE = headerName("cookie");

/** The value of a request's first cookie of that name, without quotes. Undefined: there is none. */
export function requestCookie(headers: RequestHeaders, name: string): string | undefined {
  for (const line of headers.getAll(COOKIE)) {
    for (const pair of line.split(";")) {
      const at = pair.indexOf("=");
      if (at < 0 || pair.slice(0, at).trimStart() !== name) continue;
      const value = pair.slice(at + 1).trim();
      const quoted = value.length >= 2 && value.startsWith('"') && value.endsWith('"');
      return quoted ? value.slice(1, -1) : value;
    }
  }
  return undefined;
}
