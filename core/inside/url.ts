import { utf8Decode, utf8Encode } from "@tsproxy/sdk";

/** application/x-www-form-urlencoded (WHATWG URL §5). */
export class UrlSearchParams {
  readonly #pairs: [string, string][] = [];
  readonly #onChange: (() => void) | undefined;

  constructor(
    init: string | Readonly<Record<string, string>> | Iterable<readonly [string, string]> = "",
    onChange?: () => void,
  ) {
    this.#onChange = onChange;
    if (typeof init === "string") {
      for (const part of init.replace(/^\?/, "").split("&")) {
        if (part === "") continue;
        const at = part.indexOf("=");
        const name = at < 0 ? part : part.slice(0, at);
        this.#pairs.push([decodeForm(name), at < 0 ? "" : decodeForm(part.slice(at + 1))]);
      }
    } else {
      const pairs = Symbol.iterator in init ? [...init] : Object.entries(init);
      for (const [name, value] of pairs) this.#pairs.push([String(name), String(value)]);
    }
  }

  get size(): number {
    return this.#pairs.length;
  }
  get(name: string): string | null {
    return this.#pairs.find(([n]) => n === name)?.[1] ?? null;
  }
  getAll(name: string): string[] {
    return this.#pairs.filter(([n]) => n === name).map(([, value]) => value);
  }
  has(name: string): boolean {
    return this.#pairs.some(([n]) => n === name);
  }
  append(name: string, value: string): void {
    this.#pairs.push([String(name), String(value)]);
    this.#onChange?.();
  }
  set(name: string, value: string): void {
    const at = this.#pairs.findIndex(([n]) => n === name);
    if (at < 0) this.#pairs.push([String(name), String(value)]);
    else {
      this.#pairs[at] = [String(name), String(value)];
      for (let k = this.#pairs.length - 1; k > at; k--)
        if (this.#pairs[k]![0] === name) this.#pairs.splice(k, 1);
    }
    this.#onChange?.();
  }
  delete(name: string): void {
    for (let k = this.#pairs.length - 1; k >= 0; k--)
      if (this.#pairs[k]![0] === name) this.#pairs.splice(k, 1);
    this.#onChange?.();
  }
  sort(): void {
    this.#pairs.sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0));
    this.#onChange?.();
  }
  forEach(call: (value: string, name: string) => void): void {
    for (const [name, value] of this.#pairs) call(value, name);
  }
  *entries(): IterableIterator<[string, string]> {
    for (const [name, value] of this.#pairs) yield [name, value];
  }
  *keys(): IterableIterator<string> {
    for (const [name] of this.#pairs) yield name;
  }
  *values(): IterableIterator<string> {
    for (const [, value] of this.#pairs) yield value;
  }
  [Symbol.iterator](): IterableIterator<[string, string]> {
    return this.entries();
  }
  toString(): string {
    return this.#pairs.map(([name, value]) => `${encodeForm(name)}=${encodeForm(value)}`).join("&");
  }
}

function decodeForm(text: string): string {
  const bytes: number[] = [];
  const plain = utf8Encode(text.replaceAll("+", " "));
  for (let k = 0; k < plain.length; k++) {
    const hex = plain[k] === 37 ? String.fromCharCode(plain[k + 1] ?? 0, plain[k + 2] ?? 0) : "";
    if (/^[0-9A-Fa-f]{2}$/.test(hex)) {
      bytes.push(Number.parseInt(hex, 16));
      k += 2;
    } else bytes.push(plain[k]!);
  }
  return utf8Decode(Uint8Array.from(bytes), 0, bytes.length);
}

const encodeForm = (text: string): string =>
  percentEncode(text, /[A-Za-z0-9*\-._]/).replaceAll("%20", "+");

/** Percent-encodes the UTF-8 bytes of every character that `kept` does not match. */
function percentEncode(text: string, kept: RegExp): string {
  let out = "";
  for (const char of text) {
    if (kept.test(char)) out += char;
    else
      for (const byte of utf8Encode(char))
        out += `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return out;
}

const PORTS: Readonly<Record<string, string>> = {
  "http:": "80",
  "https:": "443",
  "ws:": "80",
  "wss:": "443",
};
const PATH = /[!$&'()*+,\-./0-9:;=@A-Z[\]_a-z|~%^\\]/;
const QUERY = /[!$&()*+,\-./0-9:;=?@A-Z[\]_a-z|~%^\\`{}]/;

/** The global `URL` for http, https, ws and wss URLs, absolute or relative to a base. Host names become lower case; no IDNA. */
export class Url {
  readonly protocol: string;
  username = "";
  password = "";
  hostname: string;
  port: string;
  pathname: string;
  hash: string;
  readonly searchParams: UrlSearchParams;
  #search: string;

  constructor(input: string, base?: string | Url) {
    const text = String(input)
      .trim()
      .replace(/[\t\n\r]/g, "");
    const absolute = /^(https?:|wss?:)[\\/]{2,}([^\\/?#]*)([^?#]*)(\?[^#]*)?(#.*)?$/i.exec(text);
    if (absolute === null && base === undefined) throw new TypeError(`"${input}" is no URL`);
    const from = absolute === null ? new Url(String(base)) : undefined;
    const relative =
      absolute === null && /^[\\/]{2}/.test(text) ? new Url(`${from!.protocol}${text}`) : undefined;
    const parts = /^([^?#]*)(\?[^#]*)?(#.*)?$/.exec(text)!;
    const path = absolute?.[3] ?? relative?.pathname ?? parts[1]!;
    const query = (absolute === null ? (relative?.search ?? parts[2]) : absolute[4]) ?? "";
    this.protocol = (absolute?.[1] ?? from!.protocol).toLowerCase();
    [this.hostname, this.port] = [from?.hostname ?? "", from?.port ?? ""];
    if (relative !== undefined) [this.hostname, this.port] = [relative.hostname, relative.port];
    if (absolute !== null) this.#authority(absolute[2]!);
    const keepsPath = absolute === null && relative === undefined && path === "";
    this.pathname = keepsPath
      ? from!.pathname
      : normalised(percentEncode(path.replaceAll("\\", "/"), PATH), from?.pathname ?? "/");
    const search = keepsPath && query === "" && parts[2] === undefined ? from!.search : query;
    this.#search = search === "?" ? "" : percentEncode(search, QUERY);
    this.hash = percentEncode((absolute === null ? parts[3] : absolute[5]) ?? "", /[!-~]/);
    if (this.hash === "#") this.hash = "";
    this.searchParams = new UrlSearchParams(this.#search, () => {
      const query = this.searchParams.toString();
      this.#search = query === "" ? "" : `?${query}`;
    });
  }

  #authority(text: string): void {
    const at = text.lastIndexOf("@");
    if (at >= 0) {
      const [user = "", ...password] = text.slice(0, at).split(":");
      this.username = percentEncode(user, /[!$&'()*+,\-.0-9A-Z_a-z~%]/);
      this.password = percentEncode(password.join(":"), /[!$&'()*+,\-.0-9A-Z_a-z~%]/);
    }
    const host = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]\s<>^|%@/\\]+)(?::(\d{0,5}))?$/.exec(
      text.slice(at + 1),
    );
    if (host === null || Number(host[2] ?? 0) > 65_535)
      throw new TypeError(`"${text}" is no host of a URL`);
    this.hostname = host[1]!.toLowerCase();
    const port = host[2] === undefined || host[2] === "" ? "" : String(Number(host[2]));
    this.port = port === PORTS[this.protocol] ? "" : port;
  }

  get host(): string {
    return this.port === "" ? this.hostname : `${this.hostname}:${this.port}`;
  }
  get origin(): string {
    return `${this.protocol}//${this.host}`;
  }
  get search(): string {
    return this.#search;
  }
  set search(value: string) {
    const text = value === "" || value.startsWith("?") ? value : `?${value}`;
    for (const name of [...this.searchParams.keys()]) this.searchParams.delete(name);
    for (const [name, v] of new UrlSearchParams(text)) this.searchParams.append(name, v);
    this.#search = text === "?" ? "" : percentEncode(text, QUERY);
  }
  get href(): string {
    const password = this.password === "" ? "" : `:${this.password}`;
    const user = this.username === "" && password === "" ? "" : `${this.username}${password}@`;
    return `${this.protocol}//${user}${this.host}${this.pathname}${this.search}${this.hash}`;
  }
  toString(): string {
    return this.href;
  }
  toJSON(): string {
    return this.href;
  }
  static canParse(input: string, base?: string): boolean {
    try {
      new Url(input, base);
      return true;
    } catch {
      return false;
    }
  }
}

/** Resolves a path against `base` and removes dot segments (RFC 3986 §5.2.4). */
function normalised(path: string, base: string): string {
  const whole = path.startsWith("/") ? path : `${base.slice(0, base.lastIndexOf("/") + 1)}${path}`;
  const out: string[] = [];
  const segments = whole.split("/").slice(1);
  segments.forEach((segment, k) => {
    const plain = segment.toLowerCase().replaceAll("%2e", ".");
    if (plain === "..") out.pop();
    else if (plain !== ".") {
      out.push(segment);
      return;
    }
    if (k === segments.length - 1) out.push("");
  });
  return `/${out.join("/")}`;
}
