import { parseHost } from "./url-host.ts";
import { percentEncode, refill, UrlSearchParams } from "./url-search-params.ts";

const PORTS: Readonly<Record<string, string>> = {
  "http:": "80",
  "https:": "443",
  "ws:": "80",
  "wss:": "443",
};
// WHATWG URL §1.3: what is percent-encoded in each part.
const IN_FRAGMENT = /[^!#-;=?-_a-~]/;
const IN_QUERY = /[^!$-&(-;=?-~]/;
const IN_PATH = /[^!$-;=@-\]_a-z|~]/;
const IN_USERINFO = /[^!$-.0-9A-Z_a-z~]/;

interface Parts {
  protocol: string;
  username: string;
  password: string;
  hostname: string;
  /** "": the default one. */
  port: string;
  path: readonly string[];
  /** Undefined: no `?`. */
  query: string | undefined;
  /** Undefined: no `#`. */
  fragment: string | undefined;
}

/** The global `URL` for http, https, ws and wss URLs, absolute or relative to a base (WHATWG URL §4 and §6.1). No IDNA. */
export class Url {
  #parts: Parts;
  #searchParams: UrlSearchParams | undefined = undefined;

  constructor(input: string, base?: string | Url) {
    const parts = parse(String(input), base === undefined ? undefined : String(base));
    if (parts === undefined) throw new TypeError(`"${input}" is no URL`);
    this.#parts = parts;
  }

  get protocol(): string {
    return this.#parts.protocol;
  }
  set protocol(value: string) {
    const protocol = /^([A-Za-z][A-Za-z0-9+.-]*)(:|$)/.exec(plain(value))?.[1]?.toLowerCase();
    if (protocol === undefined || PORTS[`${protocol}:`] === undefined) return;
    this.#parts.protocol = `${protocol}:`;
    if (this.port === PORTS[this.protocol]) this.#parts.port = "";
  }
  get username(): string {
    return this.#parts.username;
  }
  set username(value: string) {
    this.#parts.username = percentEncode(String(value), IN_USERINFO);
  }
  get password(): string {
    return this.#parts.password;
  }
  set password(value: string) {
    this.#parts.password = percentEncode(String(value), IN_USERINFO);
  }
  get hostname(): string {
    return this.#parts.hostname;
  }
  set hostname(value: string) {
    const [host, port] = hostAndPort(/^[^/\\?#]*/.exec(plain(value))![0]);
    const parsed = port === undefined ? parseHost(host) : undefined;
    if (parsed !== undefined) this.#parts.hostname = parsed;
  }
  get port(): string {
    return this.#parts.port;
  }
  set port(value: string) {
    if (String(value) === "") this.#parts.port = "";
    else this.#setPort(plain(value));
  }
  get host(): string {
    return this.port === "" ? this.hostname : `${this.hostname}:${this.port}`;
  }
  set host(value: string) {
    const [host, port] = hostAndPort(/^[^/\\?#]*/.exec(plain(value))![0]);
    const parsed = parseHost(host);
    if (parsed === undefined) return;
    this.#parts.hostname = parsed;
    if (port !== undefined) this.#setPort(port);
  }
  get origin(): string {
    return `${this.protocol}//${this.host}`;
  }
  get pathname(): string {
    return `/${this.#parts.path.join("/")}`;
  }
  set pathname(value: string) {
    this.#parts.path = pathOf(plain(value).replace(/^[/\\]/, ""), []);
  }
  get search(): string {
    const { query = "" } = this.#parts;
    return query === "" ? "" : `?${query}`;
  }
  set search(value: string) {
    const query = percentEncode(plain(String(value).replace(/^\?/, "")), IN_QUERY);
    this.#parts.query = String(value) === "" ? undefined : query;
    if (this.#searchParams !== undefined) refill(this.#searchParams, query);
  }
  get searchParams(): UrlSearchParams {
    this.#searchParams ??= new UrlSearchParams(`?${this.#parts.query ?? ""}`, () => {
      const query = String(this.#searchParams);
      this.#parts.query = query === "" ? undefined : query;
    });
    return this.#searchParams;
  }
  get hash(): string {
    const { fragment = "" } = this.#parts;
    return fragment === "" ? "" : `#${fragment}`;
  }
  set hash(value: string) {
    const fragment = percentEncode(plain(String(value).replace(/^#/, "")), IN_FRAGMENT);
    this.#parts.fragment = String(value) === "" ? undefined : fragment;
  }
  get href(): string {
    const { protocol, username, password, query, fragment } = this.#parts;
    const secret = password === "" ? "" : `:${password}`;
    const user = username === "" && secret === "" ? "" : `${username}${secret}@`;
    const search = query === undefined ? "" : `?${query}`;
    const hash = fragment === undefined ? "" : `#${fragment}`;
    return `${protocol}//${user}${this.host}${this.pathname}${search}${hash}`;
  }
  set href(value: string) {
    const parts = parse(String(value), undefined);
    if (parts === undefined) throw new TypeError(`"${value}" is no URL`);
    this.#parts = parts;
    if (this.#searchParams !== undefined) refill(this.#searchParams, parts.query ?? "");
  }
  toString(): string {
    return this.href;
  }
  toJSON(): string {
    return this.href;
  }
  static canParse(input: string, base?: string | Url): boolean {
    return parse(String(input), base === undefined ? undefined : String(base)) !== undefined;
  }

  /** Takes the digits that the text begins with, if they are a port. */
  #setPort(text: string): void {
    const port = portOf(/^\d*/.exec(text)![0], this.protocol);
    if (port !== undefined && /^\d/.test(text)) this.#parts.port = port;
  }
}

/** Undefined: it is no URL, or one of another scheme. */
function parse(input: string, base: string | undefined): Parts | undefined {
  const from = base === undefined ? undefined : parse(base, undefined);
  if (base !== undefined && from === undefined) return undefined;
  const text = plain(input.replace(/^[\0- ]+|[\0- ]+$/g, ""));
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):/.exec(text);
  if (scheme === null) return from && relative(text, from);
  const protocol = scheme[0].toLowerCase();
  const rest = text.slice(scheme[0].length);
  if (PORTS[protocol] === undefined) return undefined;
  if (from?.protocol === protocol && !rest.startsWith("//")) return relative(rest, from);
  return absolute(protocol, rest.replace(/^[/\\]*/, ""));
}

/** Texts of URLs are read without tabs and line ends. */
function plain(text: string): string {
  return String(text).replace(/[\t\n\r]/g, "");
}

function absolute(protocol: string, text: string): Parts | undefined {
  const authority = /^[^/\\?#]*/.exec(text)![0];
  const at = authority.lastIndexOf("@");
  const user = authority.slice(0, Math.max(0, at));
  const colon = user.indexOf(":");
  const [host, digits = ""] = hostAndPort(authority.slice(at + 1));
  const hostname = parseHost(host);
  const port = portOf(digits, protocol);
  if (hostname === undefined || port === undefined) return undefined;
  return {
    protocol,
    username: percentEncode(colon < 0 ? user : user.slice(0, colon), IN_USERINFO),
    password: colon < 0 ? "" : percentEncode(user.slice(colon + 1), IN_USERINFO),
    hostname,
    port,
    ...rest(text.slice(authority.length).replace(/^[/\\]/, ""), []),
  };
}

function relative(text: string, from: Parts): Parts | undefined {
  if (/^[/\\]{2}/.test(text)) return absolute(from.protocol, text.replace(/^[/\\]+/, ""));
  if (/^[/\\]/.test(text)) return { ...from, ...rest(text.slice(1), []) };
  if (/^[^?#]/.test(text)) return { ...from, ...rest(text, from.path.slice(0, -1)) };
  const { query, fragment } = rest(text, []);
  return { ...from, query: text.startsWith("?") ? query : from.query, fragment };
}

/** What follows the authority. `before`: the segments that the path is relative to. */
function rest(text: string, before: readonly string[]): Pick<Parts, "path" | "query" | "fragment"> {
  const [, path, query, fragment] = /^([^?#]*)(?:\?([^#]*))?(?:#(.*))?$/s.exec(text)!;
  return {
    path: pathOf(path!, before),
    query: query === undefined ? undefined : percentEncode(query, IN_QUERY),
    fragment: fragment === undefined ? undefined : percentEncode(fragment, IN_FRAGMENT),
  };
}

/** Segments of a path, without those that are `.` or `..`, which may be written with `%2e`. */
function pathOf(text: string, before: readonly string[]): string[] {
  const out = [...before];
  const segments = text.split(/[/\\]/);
  segments.forEach((segment, k) => {
    const dots = segment.replace(/%2e/gi, ".");
    if (dots === "..") out.pop();
    else if (dots !== ".") {
      out.push(percentEncode(segment, IN_PATH));
      return;
    }
    if (k === segments.length - 1) out.push("");
  });
  return out;
}

/** Cut at the first colon that is not within brackets; a second part of undefined: there is none. */
function hostAndPort(text: string): readonly [host: string, port: string | undefined] {
  const host = /^(?:\[[^\]]*(?:\]|$)|[^:[])*/.exec(text)![0];
  return [host, text[host.length] === ":" ? text.slice(host.length + 1) : undefined];
}

/** A port as URLs write it: "" for the default one. Undefined: it is none. */
function portOf(digits: string, protocol: string): string | undefined {
  if (digits === "") return "";
  if (!/^\d+$/.test(digits) || Number(digits) > 65_535) return undefined;
  const port = String(Number(digits));
  return port === PORTS[protocol] ? "" : port;
}
