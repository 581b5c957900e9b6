import { type Route, TYPED_METADATA } from "@tsproxy/sdk";
import { describe, expect, it } from "vitest";
import { script, shown } from "./test-script.ts";

describe("the stream", () => {
  const route = {
    name: "home",
    virtualHostName: "site",
    routeMetadata: { "envoy.filters.http.lua": { text: "é", list: [1, { a: true }] } },
    virtualHostMetadata: { "envoy.filters.http.lua": { n: 5 } },
  } as unknown as Route;

  it("has metadata of its route and virtual host, and the route's filter_context", () => {
    const options = { route, routeConfig: { filter_context: { k: "v" } } };
    expect(shown(`h:metadata():get("text")`, options)).toBe("\xc3\xa9");
    expect(
      shown(`h:route():metadata():get("list")[2].a, h:virtualHost():metadata():get("n")`, options),
    ).toBe("true 5");
    expect(
      shown(`h:filterContext():get("k"), select("#", h:metadata():get("none"))`, options),
    ).toBe("v 0");
    expect(shown(`h:streamInfo():routeName(), h:streamInfo():protocol()`, options)).toBe(
      "home HTTP/1.1",
    );
  });

  it("has dynamic metadata and filter state, for others too", () => {
    const { stream } = script(`
      function envoy_on_request(h)
        local info = h:streamInfo()
        info:dynamicMetadata():set("ns", "key", { "a", { b = 1.5 } })
        info:dynamicMetadata():set("ns", "more", true)
        info:filterState():set("state", "envoy.string", "value")
        for name, values in pairs(info:dynamicMetadata()) do h:headers():add("x-" .. name, tostring(values.more)) end
      end`);
    const s = stream().requestHeaders("GET", "/");
    expect(s.metadata.get("ns")).toEqual({ key: ["a", { b: 1.5 }], more: true });
    expect(s.filterState.get("state")).toBe("value");
    expect(s.upstream.header("x-ns")).toBe("true");
  });

  it("hands out one object a kind, which is not edited while it is gone through", () => {
    for (const thing of [
      "metadata()",
      "route():metadata()",
      "filterContext()",
      "streamInfo():dynamicMetadata()",
      "streamInfo():filterState()",
      "connectionStreamInfo():dynamicMetadata()",
    ])
      expect(shown(`h:${thing} == h:${thing}`, { route })).toBe("true");
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`, { route });
    const dynamic = "h:streamInfo():dynamicMetadata()";
    const each = (code: string) =>
      fails(`${dynamic}:set("a", "b", 1) for k in pairs(${dynamic}) do ${code} end`);
    expect(each(`${dynamic}:set("c", "d", 1)`)).toMatch(/cannot be modified while iterating$/);
    expect(each(`for j in pairs(${dynamic}) do end`)).toMatch(/cannot create a second iterator/);
    expect(
      fails("for k in pairs(h:metadata()) do for j in pairs(h:metadata()) do end end"),
    ).toMatch(/cannot create a second iterator/);
  });

  it("refuses what Envoy refuses", () => {
    const fails = (code: string) => shown(`select(2, pcall(function() ${code} end))`);
    const state = "h:streamInfo():filterState()";
    expect(fails(`${state}:set("k", "none", "v")`)).toMatch(
      /'none' does not have an object factory$/,
    );
    expect(fails(`${state}:set("k", "envoy.network.ip", "there")`)).toMatch(
      /failed to create an object 'k' from value 'there'$/,
    );
    expect(fails(`h:body("yes")`)).toMatch(/boolean expected, got string/);
    expect(fails(`h:setUpstreamOverrideHost("192.0.2.1:80", "yes")`)).toMatch(/boolean expected/);
    expect(fails(`h:respond({ [":status"] = "200", ["a b"] = "c" })`)).toMatch(
      /invalid header name 'a b'$/,
    );
    expect(fails(`h:respond({ [":status"] = "200", "c" })`)).toBe("invalid key to 'next'");
    expect(fails(`h:stats():gauge("g"):set(-1)`)).toMatch(/gauge set value must be non-negative$/);
    expect(fails(`h:stats():histogram("h", "yards")`)).toMatch(
      /invalid histogram unit 'yards', expected 'ms', .*, or 'unspecified'$/,
    );
    expect(fails(`assert(false, "no")`)).toMatch(/:8: no$/);
    expect(fails("error(5)")).toMatch(/:8: 5$/);
  });

  it("has what a PROXY header has said", () => {
    const proxied = "envoy.filters.listener.proxy_protocol";
    const downstreamConnection = { metadata: new Map([[proxied, { service: "a" }]]) } as never;
    const typed = `h:connectionStreamInfo():dynamicTypedMetadata`;
    expect(
      shown(`${typed}("${proxied}").typed_metadata.service, ${typed}("none")`, {
        downstreamConnection,
      }),
    ).toBe("a nil");
  });

  it("has addresses and TLS", () => {
    const info = { downstreamRemoteAddress: { ip: "192.0.2.9", port: 1 } };
    expect(shown("h:streamInfo():downstreamRemoteAddress(), h:connection():ssl()", { info })).toBe(
      "192.0.2.9:1 nil",
    );
    const certificate = {
      subject: String.raw`CN=client,O=Gr\C3\BCn \+ \\C3`,
      issuer: "CN=ca",
      serial: "0a",
      sha256: "ff",
      notBefore: 1000,
      notAfter: 2000,
      names: [{ type: "URI", value: "spiffe://a" }],
      pem: "PEM\n",
    };
    const tls = {
      version: "TLSv1.3",
      cipher: "TLS_AES_256_GCM_SHA384",
      sessionId: "",
      peer: certificate,
      peerValidated: true,
    };
    const downstreamConnection = { serverName: "sni", tls } as never;
    const ssl = (method: string) =>
      shown(`h:streamInfo():downstreamSslConnection():${method}`, { downstreamConnection });
    expect(ssl("subjectPeerCertificate()")).toBe(certificate.subject);
    expect(ssl("uriSanPeerCertificate()[1]")).toBe("spiffe://a");
    expect(ssl("parsedSubjectPeerCertificate():organizationName()[1]")).toBe(
      Buffer.from(String.raw`Grün + \C3`).toString("latin1"),
    );
    expect(ssl("ciphersuiteId()")).toBe("0x1302");
    expect(ssl("expirationPeerCertificate()")).toBe("2");
    expect(shown("h:streamInfo():requestedServerName()", { downstreamConnection })).toBe("sni");
  });
});

it("reads typed metadata that other filters have set", () => {
  const { stream } = script(`
    function envoy_on_request(h)
      local info = h:streamInfo()
      local typed = info:dynamicTypedMetadata("a")
      h:headers():add("x-typed", typed.value .. type(info:dynamicTypedMetadata("none")))
    end`);
  const s = stream();
  s.filterState.set(TYPED_METADATA, { a: { value: "hello" } });
  s.requestHeaders("GET", "/");
  expect(s.upstream.header("x-typed")).toBe("hellonil");
});

it("makes objects of filter state as Envoy's factories do", () => {
  const kept = (factory: string, text: string) =>
    shown(
      `(function() local f = h:streamInfo():filterState() f:set("k", "${factory}", "${text}") return f:get("k") end)()`,
    );
  expect(kept("envoy.bool", "YES")).toBe("true");
  expect(kept("envoy.network.ip", "192.0.2.1")).toBe("192.0.2.1:0");
  expect(kept("envoy.network.transport_socket.original_dst_address", "[::1]:80")).toBe("[::1]:80");
  expect(kept("envoy.upstream.dynamic_port", "0443")).toBe("443");
  const protocols = '"envoy.network.application_protocols"';
  const state = "h:streamInfo():filterState()";
  const set = `${state}:set(${protocols}, ${protocols}, "h2")`;
  expect(shown(`(function() ${set} return tostring((${state}:get(${protocols}))) end)()`)).toBe(
    "nil",
  );
});
