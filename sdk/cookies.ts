import { headerName, type RequestHeaders } from "./headers.ts";
import { headerText } from "./wire-text.ts";

const COOKIE = headerName("cookie");

/** A cookie of the config, which stands there at `at`, as it is on the wire. Throws ConfigError if it has control characters. */
export function wireCookie(
  cookie: {
    readonly name: string;
    readonly path: string;
    readonly attributes: readonly { readonly name: string; readonly value: string }[];
  },
  at: string,
) {
  return {
    name: headerText(cookie.name, `${at}.name`),
    path: headerText(cookie.path, `${at}.path`),
    attributes: cookie.attributes.map(
      ({ name, value }, k) =>
        [
          headerText(name, `${at}.attributes[${k}].name`),
          headerText(value, `${at}.attributes[${k}].value`),
        ] as const,
    ),
  };
}

/**
 * A `set-cookie` line as Envoy writes it: `setCookieLine({ name: "sid", path: "/", attributes: [["Secure", ""]] }, "value", 3600)`.
 * `maxAgeS` in seconds; 0: until the browser is closed. `path` "": none. `HttpOnly` always comes last.
 */
export function setCookieLine(
  cookie: {
    readonly name: string;
    readonly path: string;
    readonly attributes?: readonly (readonly [name: string, value: string])[];
  },
  value: string,
  maxAgeS: number,
): string {
  const parts = [`${cookie.name}="${value}"`];
  if (maxAgeS > 0) parts.push(`Max-Age=${maxAgeS}`);
  if (cookie.path !== "") parts.push(`Path=${cookie.path}`);
  for (const [name, text] of cookie.attributes ?? [])
    parts.push(text === "" ? name : `${name}=${text}`);
  parts.push("HttpOnly");
  return parts.join("; ");
}

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
