import {
  type HeaderName,
  nameOf,
  type RequestHeaders,
  type ResponseHeaders,
  requestCookie,
  setCookieLine,
  wireCookie,
} from "@tsproxy/sdk";
import type { Config } from "./config.ts";

/** Where a client keeps the address of its host. */
export interface SessionState {
  /** False: the request is outside the cookie's path. */
  covers(headers: RequestHeaders): boolean;
  /** The address that the client has kept; undefined: none, or one that has expired. */
  read(headers: RequestHeaders): string | undefined;
  /** Tells the client which address to keep. `before`: the one that it brought. */
  write(headers: ResponseHeaders, address: string, before: string | undefined): void;
}

export function sessionState(config: NonNullable<Config["session_state"]>): SessionState {
  const state = config.typed_config;
  if ("cookie" in state) return new CookieState(state.cookie);
  if ("header" in state)
    return new EnvelopeState(nameOf(state.header.name, "session_state.typed_config.header.name"));
  return new HeaderState(nameOf(state.name, "session_state.typed_config.name"));
}

type Cookie = Extract<
  NonNullable<Config["session_state"]>["typed_config"],
  { readonly cookie: unknown }
>["cookie"];

/** A cookie with a small message in base64: the address, and when the cookie expires (Unix time in s; 0: with the session). */
class CookieState implements SessionState {
  readonly #cookie: ReturnType<typeof wireCookie>;
  /** In milliseconds. */
  readonly #ttl: number;

  constructor(cookie: Cookie) {
    this.#cookie = wireCookie(cookie, "session_state.typed_config.cookie");
    this.#ttl = cookie.ttl;
  }

  /** Whether the cookie's path is the request's, or a folder above it. */
  covers({ path: asked }: RequestHeaders): boolean {
    const { path } = this.#cookie;
    if (path === "" || path === "/") return true;
    if (!asked.startsWith(path)) return false;
    if (path.endsWith("/") || asked.length === path.length) return true;
    return "/?#".includes(asked[path.length]!);
  }

  read(headers: RequestHeaders): string | undefined {
    const value = requestCookie(headers, this.#cookie.name);
    const bytes = decoded(value);
    if (bytes === undefined) return undefined;
    const said = parseMessage(bytes);
    // Older cookies hold the bare address.
    if (said === undefined) return bytes;
    if (said.address === "") return undefined;
    const expired = said.expires === 0 ? this.#ttl > 0 : said.expires < Date.now() / 1000;
    return expired ? undefined : said.address;
  }

  write(headers: ResponseHeaders, address: string, before: string | undefined): void {
    if (address === before) return;
    const seconds = Math.floor(this.#ttl / 1000);
    const expires = seconds === 0 ? 0 : Math.floor(Date.now() / 1000) + seconds;
    const value = btoa(message(address, expires));
    headers.append("set-cookie", setCookieLine(this.#cookie, value, seconds));
  }
}

class HeaderState implements SessionState {
  readonly #name: HeaderName;

  constructor(name: HeaderName) {
    this.#name = name;
  }

  covers(): boolean {
    return true;
  }

  read(headers: RequestHeaders): string | undefined {
    return decoded(headers.get(this.#name));
  }

  write(headers: ResponseHeaders, address: string, before: string | undefined): void {
    if (address !== before) headers.set(this.#name, btoa(address));
  }
}

/**
 * A header that the upstream sets, into which the address is packed: `<address>;UV:<the upstream's value>`, both in base64. The
 * upstream gets its own value back when the client returns the header.
 */
class EnvelopeState implements SessionState {
  readonly #name: HeaderName;

  constructor(name: HeaderName) {
    this.#name = name;
  }

  covers(): boolean {
    return true;
  }

  read(headers: RequestHeaders): string | undefined {
    const value = headers.get(this.#name);
    const at = value?.indexOf(ENVELOPE) ?? -1;
    if (value === undefined || at < 0) return undefined;
    const original = decoded(value.slice(at + ENVELOPE.length));
    const address = decoded(value.slice(0, at));
    if (original === undefined || address === undefined || !FIELD.test(original)) return undefined;
    headers.set(this.#name, original);
    return address;
  }

  write(headers: ResponseHeaders, address: string): void {
    const value = headers.get(this.#name);
    if (value === undefined) return;
    headers.set(this.#name, `${btoa(address)}${ENVELOPE}${btoa(value)}`);
  }
}

const ENVELOPE = ";UV:";
/** Texts that a header value can carry. */
const FIELD = /^[\t\x20-\x7e\x80-\xff]*$/;

const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;

/** The bytes as text, one char each. Undefined: the text is empty or not base64. */
function decoded(base64: string | undefined): string | undefined {
  return base64 === undefined || base64 === "" || !BASE64.test(base64) ? undefined : atob(base64);
}

/** Encodes a protobuf message: field 1 is the address, field 2 the expiry, left out if 0. */
function message(address: string, expires: number): string {
  const bytes = `\n${varint(address.length)}${address}`;
  return expires > 0 ? `${bytes}\x10${varint(expires)}` : bytes;
}

function varint(value: number): string {
  let bytes = "";
  let rest = value;
  while (rest > 127) {
    bytes += String.fromCharCode((rest % 128) + 128);
    rest = Math.floor(rest / 128);
  }
  return bytes + String.fromCharCode(rest);
}

/** Decodes what `message` encodes. Undefined: the bytes are no such message. */
function parseMessage(
  bytes: string,
): { readonly address: string; readonly expires: number } | undefined {
  let [at, address, expires] = [0, "", 0];
  const number = (): number => {
    let [value, scale] = [0, 1];
    // 49 bits are enough for any length or time; more are refused.
    for (let k = 0; k < 7 && at < bytes.length; k++, scale *= 128) {
      const byte = bytes.charCodeAt(at++);
      value += (byte & 127) * scale;
      if (byte < 128) return value;
    }
    return -1;
  };
  while (at < bytes.length) {
    const tag = number();
    const value = number();
    if (value < 0) return undefined;
    if (tag === 0x10) expires = value;
    else if (tag === 0x0a && at + value <= bytes.length) {
      address = bytes.slice(at, at + value);
      at += value;
    } else return undefined;
  }
  return { address, expires };
}
