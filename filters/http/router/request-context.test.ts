import { describe, expect, it } from "vitest";
import codec from "../../codec/http1/filter.ts";
import { proxies } from "../../network/http_connection_manager/test-proxy.ts";
import router from "./filter.ts";

const proxy = proxies({ codec, router });

describe("hash policies", () => {
  const hash = (policies: object[], ...lines: string[]) => {
    const p = proxy(
      {},
      { hash_policy: policies.map((policy) => ({ terminal: false, ...policy })) },
    );
    const c = p.connect().get("/path?k=a%20b&x=1", ...lines);
    const value = p.up.contexts[0]!.hash;
    p.up.last.respond(200, {}, "");
    return { value, cookie: /set-cookie: (.*)/.exec(c.take())?.[1] };
  };

  it("hash a header, a parameter, the client's address, or nothing", () => {
    expect(hash([{ header: { header_name: "x-k" } }], "x-k: abc").value).toBe(0x44bc2cf5ad770999n);
    expect(hash([{ header: { header_name: "x-k" } }]).value).toBeUndefined();
    const query = hash([{ query_parameter: { name: "k" } }]).value;
    // As it is written, not what it stands for.
    expect(query).toBe(hash([{ header: { header_name: "x-k" } }], "x-k: a%20b").value);
    const ip = hash([{ connection_properties: { source_ip: true } }]).value;
    expect(ip).toBe(hash([{ header: { header_name: "x-k" } }], "x-k: 192.0.2.1").value);
  });

  it("mix, each turning what came before by a bit, up to the first terminal one", () => {
    const a = { header: { header_name: "a" } };
    const b = { header: { header_name: "b" } };
    const lines = ["a: abc", "b: abc"];
    const one = 0x44bc2cf5ad770999n;
    const turned = BigInt.asUintN(64, (one << 1n) | (one >> 63n));
    expect(hash([a, b], ...lines).value).toBe(turned ^ one);
    expect(hash([{ ...a, terminal: true }, b], ...lines).value).toBe(one);
  });

  it("give a client without the cookie one", () => {
    const policy = { cookie: { name: "k", ttl: 60_000, path: "/p", attributes: [] } };
    const { value, cookie } = hash([policy]);
    expect(cookie).toMatch(/^k="[0-9a-f]{16}"; Max-Age=60; Path=\/p; HttpOnly$/);
    const sent = /"(.*)"/.exec(cookie!)![1];
    const again = hash([policy], `cookie: a=b; k=${sent}`);
    expect([again.value, again.cookie]).toEqual([value, undefined]);
  });

  it("give a client without the cookie the same one for each attempt", () => {
    const cookie = { name: "k", ttl: 60_000, attributes: [] };
    const p = proxy(
      {},
      {
        hash_policy: [{ cookie, terminal: false }],
        retry_policy: { retry_on: "5xx", retry_back_off: { base_interval: 1, max_interval: 1 } },
      },
    );
    const c = p.connect().get("/");
    const first = p.up.contexts[0]!.hash;
    p.up.last.respond(503, {}, "");
    p.cx.clock.advance(5);
    const second = p.up.contexts[1]!.hash;
    p.up.last.respond(200, {}, "");
    expect(second).toBe(first);
    expect(c.take().match(/set-cookie: k=/g)).toHaveLength(2);
  });

  it("of a balancer give a client one cookie, the latest", () => {
    const p = proxy({});
    Object.assign(p.up, { choosesByStream: true });
    const c = p.connect().get("/");
    const context = p.up.contexts[0]!;
    context.giveCookie?.("k=1");
    context.giveCookie?.("k=2");
    p.up.last.respond(200, {}, "");
    expect(c.take().match(/set-cookie: .*/g)).toEqual(["set-cookie: k=2"]);
  });
});
