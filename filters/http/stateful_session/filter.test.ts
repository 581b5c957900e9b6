import { overrideHostOf, WISH } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { describe, expect, it } from "vitest";
import filter from "./filter.ts";

const SPACE = "x/envoy.extensions.http.stateful_session";
const cookie = (more: object = {}) => ({
  "@type": `${SPACE}.cookie.v3.CookieBasedSessionState`,
  cookie: { name: "s", ...more },
});
const header = { "@type": `${SPACE}.header.v3.HeaderBasedSessionState`, name: "x-host" };
const envelope = { "@type": `${SPACE}.envelope.v3.EnvelopeSessionState`, header: { name: "sid" } };
const config = (typed_config: object, more: object = {}) =>
  withDefaults(filter.config, { session_state: { name: "n", typed_config }, ...more });

/** One exchange with the host 10.0.0.1:80; what the client is told, and who was asked for. */
function exchange(
  made: unknown,
  headers: Record<string, string> = {},
  { path = "/", routeConfigs = [] as unknown[], answer = {} as Record<string, string> } = {},
) {
  const cx = new TestContext();
  const s = new TestStream(cx, cx.setup(filter, made), { routeConfigs });
  s.requestHeaders("GET", path, headers);
  s.info.upstreamHost = { ip: "10.0.0.1", port: 80 };
  s.responseHeaders(200, answer);
  const told = (name: string) => s.downstream.headers.find(([key]) => key === name)?.[1];
  return { asked: overrideHostOf(s.filterState.get(WISH.UPSTREAM_HOST)), told, request: s.request };
}
const set = (text: string | undefined) => /^s="([^"]*)"/.exec(text ?? "")?.[1] ?? "";

describe("a session in a cookie", () => {
  it("begins with any host, and goes on with the same without being told again", () => {
    const first = exchange(config(cookie({ path: "/shop" })), {}, { path: "/shop/1" });
    expect(first.asked).toBeUndefined();
    // Field 1 of a message: the address.
    expect(first.told("set-cookie")).toBe(`s="${btoa("\n\x0b10.0.0.1:80")}"; Path=/shop; HttpOnly`);
    const value = set(first.told("set-cookie"));
    const next = exchange(config(cookie()), { cookie: `a=b; s="${value}"` });
    expect(next.asked).toEqual({ address: "10.0.0.1:80", strict: false });
    expect(next.told("set-cookie")).toBeUndefined();
    const old = exchange(config(cookie(), { strict: true }), {
      cookie: `s=${btoa("10.0.0.2:80")}`,
    });
    expect(old.asked).toEqual({ address: "10.0.0.2:80", strict: true });
    expect(old.told("set-cookie")).toContain("s=");
  });

  it("ends with its time", () => {
    const ttl = config(cookie({ ttl: 60_000 }));
    const told = exchange(ttl).told("set-cookie");
    expect(told).toMatch(/; Max-Age=60; HttpOnly$/);
    const value = set(told);
    expect(exchange(ttl, { cookie: `s=${value}` }).asked?.address).toBe("10.0.0.1:80");
    const past = btoa("\n\x0b10.0.0.1:80\x10\x05");
    expect(exchange(ttl, { cookie: `s=${past}` }).asked).toBeUndefined();
    expect(exchange(ttl, { cookie: `s=${btoa("\n\x0b10.0.0.1:80")}` }).asked).toBeUndefined();
  });

  it("is found and kept under a name and path beyond Latin-1", () => {
    const [name, path] = ["имя", "/путь"].map((text) => Buffer.from(text).toString("latin1"));
    const own = config(cookie({ name: "имя", path: "/путь" }));
    const told = exchange(own, {}, { path: path! }).told("set-cookie");
    expect(told).toContain(`${name}="`);
    expect(told).toContain(`Path=${path};`);
    const value = btoa("10.0.0.1:80");
    expect(exchange(own, { cookie: `${name}=${value}` }, { path: path! }).asked?.address).toBe(
      "10.0.0.1:80",
    );
  });

  it("is of the path of its cookie", () => {
    const value = btoa("\n\x0b10.0.0.1:80");
    const asked = (path: string) =>
      exchange(config(cookie({ path: "/a" })), { cookie: `s=${value}` }, { path }).asked;
    for (const path of ["/a", "/a/b", "/a?c"]) expect(asked(path)).toBeDefined();
    for (const path of ["/", "/ab"]) expect(asked(path)).toBeUndefined();
    const elsewhere = exchange(config(cookie({ path: "/a" })), {}, { path: "/b" });
    expect(elsewhere.told("set-cookie")).toBeUndefined();
  });

  it("takes whatever a client sends for one", () => {
    for (const bytes of [
      "\n",
      "\n\xff",
      "\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff",
      "\n\x7fx",
      "",
    ]) {
      expect(() => exchange(config(cookie()), { cookie: `s=${btoa(bytes)}` })).not.toThrow();
    }
    expect(exchange(config(cookie()), { cookie: "s=no base64" }).asked).toBeUndefined();
  });
});

describe("a session elsewhere", () => {
  it("may be in a header", () => {
    const told = exchange(config(header)).told("x-host");
    expect(told).toBe(btoa("10.0.0.1:80"));
    expect(exchange(config(header), { "x-host": told! }).asked?.address).toBe("10.0.0.1:80");
  });

  it("may go along with the upstream's own, which gets that back", () => {
    const told = exchange(config(envelope), {}, { answer: { sid: "mine" } }).told("sid");
    expect(told).toBe(`${btoa("10.0.0.1:80")};UV:${btoa("mine")}`);
    const next = exchange(config(envelope), { sid: told! });
    expect(next.asked?.address).toBe("10.0.0.1:80");
    expect([...next.request]).toContainEqual(["sid", "mine"]);
    expect(exchange(config(envelope)).told("sid")).toBeUndefined();
    for (const bytes of ["a\r\nx: y", "\0", "\x7f"]) {
      const sid = `${btoa("10.0.0.1:80")};UV:${btoa(bytes)}`;
      const bad = exchange(config(envelope), { sid });
      expect([bad.asked, [...bad.request].find(([name]) => name === "sid")?.[1]]).toEqual([
        undefined,
        sid,
      ]);
    }
  });
});

it("is what the route says of it", () => {
  const off = exchange(config(header), {}, { routeConfigs: [{ disabled: true }] });
  expect(off.told("x-host")).toBeUndefined();
  const other = { stateful_session: config({ ...header, name: "x-other" }) };
  expect(exchange(config(header), {}, { routeConfigs: [other] }).told("x-other")).toBeDefined();
});
