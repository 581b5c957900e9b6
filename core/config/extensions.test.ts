import { describe, expect, it } from "vitest";
import { chain, cluster, config, errors, hcm, http, ROUTER, TYPES, warnings } from "./test-load.ts";

describe("an extension", () => {
  it("is found by its type, whatever its name", () => {
    expect(hcm(http(`          - ${ROUTER}`)).http_filters).toEqual([
      { name: "r", package: "http/router", config: {} },
    ]);
  });

  it("is found inside a TypedStruct", () => {
    const text = http(`          - name: b
            typed_config:
              "@type": type.googleapis.com/xds.type.v3.TypedStruct
              type_url: ${TYPES}.http.buffer.v3.Buffer
              value: {max_request_bytes: "5"}
          - ${ROUTER}`);
    expect(hcm(text).http_filters[0]).toEqual({
      name: "b",
      package: "http/buffer",
      config: { max_request_bytes: 5 },
    });
  });

  it("is found by kind/name and by a dropped-in filter's bare name, with config", () => {
    const text =
      http(`          - {name: shield, config: {limit: "5", window: 0.25s, mode: loud, stickyIp: true}}
          - {name: http/buffer, config: {max_request_bytes: 5}}
          - {name: http/router}`);
    expect(hcm(text).http_filters).toEqual([
      {
        name: "shield",
        package: "http/shield",
        config: { limit: 5, window: 250, mode: "LOUD", sticky_ip: true },
      },
      { name: "http/buffer", package: "http/buffer", config: { max_request_bytes: 5 } },
      { name: "http/router", package: "http/router", config: {} },
    ]);
  });

  it("answers a wrong name with the right one", () => {
    expect(
      errors(
        http(
          "          - name: http/bufer\n            config: {max_request_bytes: 5}\n          - {name: http/router}",
        ),
      ),
    ).toEqual([
      'front.yaml:13:19: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].name: no HTTP filter "http/bufer"; did you mean "http/buffer"?',
    ]);
  });

  it("answers a name that is like no other with where filters of one's own are found", () => {
    expect(errors(http("          - name: my_quota\n          - {name: http/router}"))[0]).toMatch(
      /no HTTP filter "my_quota"; put yours into filters\/ beside the config, or name its folder with --filters$/,
    );
  });

  it("answers a wrong field of a dropped-in filter with the right one", () => {
    expect(
      errors(
        http("          - {name: shield, config: {limitt: 5}}\n          - {name: http/router}"),
      )[0],
    ).toMatch(/config\.limitt: unknown field "limitt"; did you mean "limit"\?$/);
    expect(
      errors(
        http(
          "          - {name: shield, config: {limit: 10KB, label: 5, window: 3}}\n          - {name: http/router}",
        ),
      ),
    ).toEqual([
      expect.stringMatching(/config\.limit: "10KB" is not a number; write 10240$/),
      expect.stringMatching(/config\.label: 5 is a number, not a string; write "5"$/),
      expect.stringMatching(/config\.window: 3 is not a duration; write "3s"$/),
    ]);
  });

  it("with a full Envoy name needs a typed_config, as in Envoy", () => {
    const text = http("          - name: envoy.filters.http.router");
    expect(errors(text)).toEqual([
      `front.yaml:13:19: static_resources.listeners[0].filter_chains[0].filters[0].typed_config.http_filters[0].name: "envoy.filters.http.router" needs a typed_config; add typed_config: {"@type": ${TYPES}.http.router.v3.Router}, or name it "http/router"`,
    ]);
  });

  it("may not have config beside typed_config", () => {
    const text = http(
      `          - {name: b, config: {}, typed_config: {"@type": ${TYPES}.http.router.v3.Router}}`,
    );
    expect(errors(text)[0]).toMatch(
      /http_filters\[0\]\.config: "config" stands beside "typed_config"; keep one of them$/,
    );
  });

  it("that Envoy has and we lack is refused with its name, and so is one of another kind", () => {
    const lua =
      http(`          - {name: l, typed_config: {"@type": ${TYPES}.http.lua.v3.Lua, inline_code: x}}
          - ${ROUTER}`);
    expect(errors(lua)[0]).toMatch(/Envoy's envoy\.filters\.http\.lua is not implemented here$/);
    expect(
      errors(http("          - {name: http/lua}\n          - {name: http/router}"))[0],
    ).toMatch(/name: Envoy's envoy\.filters\.http\.lua is not implemented here$/);
    const tcp = http(
      `          - {name: t, typed_config: {"@type": ${TYPES}.network.tcp_proxy.v3.TcpProxy, stat_prefix: s, cluster: c}}`,
    );
    expect(errors(tcp)[0]).toMatch(
      /network\/tcp_proxy is a network filter; an HTTP filter belongs here$/,
    );
  });

  it("of a type that nobody has is refused with the type that was meant", () => {
    const text = http(
      `          - {name: l, typed_config: {"@type": ${TYPES}.http.router.v3.Ruter}}`,
    );
    expect(errors(text)[0]).toMatch(
      /no HTTP filter has the type "envoy\.extensions\.filters\.http\.router\.v3\.Ruter"; did you mean "envoy\.extensions\.filters\.http\.router\.v3\.Router"\?$/,
    );
    const foreign = http(
      `          - {name: l, typed_config: {"@type": type.googleapis.com/acme.Filter}}`,
    );
    expect(errors(foreign)[0]).toMatch(/no HTTP filter has the type "acme\.Filter"$/);
  });

  it("that is optional and missing is left out, with a warning", () => {
    const text =
      http(`          - {name: l, is_optional: true, typed_config: {"@type": ${TYPES}.http.lua.v3.Lua, inline_code: x}}
          - {name: m, is_optional: true, typed_config: {"@type": type.googleapis.com/acme.Filter}}
          - ${ROUTER}`);
    expect(hcm(text).http_filters.map((f) => f.name)).toEqual(["r"]);
    expect(warnings(text)).toEqual([
      expect.stringMatching(/optional filter "l" is not implemented here and left out$/),
      expect.stringMatching(/optional filter "m" is not implemented here and left out$/),
    ]);
  });

  it("of a list in order of preference is the first that there is", () => {
    const POLICIES = "type.googleapis.com/envoy.extensions.load_balancing_policies";
    const policy = (name: string, typed: string) =>
      `{typed_extension_config: {name: ${name}, typed_config: {"@type": ${typed}}}}`;
    const own = policy(
      "own",
      "type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/acme.Best",
    );
    const later = policy("later", `${POLICIES}.random.v3.Random`);
    const least = policy("least", `${POLICIES}.least_request.v3.LeastRequest`);
    const of = (...policies: string[]) =>
      cluster(`load_balancing_policy: {policies: [${policies.join()}]}`);
    const text = of(own, least, later);
    const [made] = config(text).services.find((s) => s.package === "service/cluster_manager")!
      .config as { load_balancing_policy: { policies: unknown[] } }[];
    expect(made!.load_balancing_policy.policies).toEqual([
      { typed_extension_config: expect.objectContaining({ package: "balancer/least_request" }) },
    ]);
    expect(warnings(text)).toEqual([
      expect.stringMatching(/"own" is not implemented here; the next one is taken$/),
    ]);
    expect(errors(of(own))).toEqual([
      expect.stringMatching(/type_url: Envoy has no type "acme\.Best"$|acme\.Best/),
    ]);
  });

  it("is handed over with the fields of its entry that the place asks for", () => {
    const log = `{name: l, filter: {not_health_check_filter: {}}, typed_config: {"@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog, path: /x}}`;
    const text = http(`          - ${ROUTER}\n          access_log: [${log}]`);
    expect(hcm(text)).toMatchObject({
      access_log: [
        {
          name: "l",
          package: "access_log/file",
          filter: { not_health_check_filter: {} },
          config: { path: "/x" },
        },
      ],
    });
    expect(errors(http(`          - {name: http/router, disabled: true}`))[0]).toMatch(
      /http_filters\[0\]\.disabled: known to Envoy, not implemented here, and not safe to ignore$/,
    );
  });

  it("that is terminal stands last, and nothing else does; an empty list is allowed", () => {
    const buffer = "{name: http/buffer, config: {max_request_bytes: 5}}";
    expect(errors(http(`          - ${ROUTER}\n          - ${buffer}`))).toEqual([
      expect.stringMatching(
        /http_filters\[0\]\.name: terminal filter "r" must be the last HTTP filter$/,
      ),
      expect.stringMatching(
        /http_filters\[1\]\.name: "http\/buffer" is not a terminal filter, and the last HTTP filter must be one; end with envoy\.filters\.http\.router$/,
      ),
    ]);
    expect(hcm(http("            []")).http_filters).toEqual([]);
    expect(errors(chain("[{filters: [{name: sniff}]}]"))[0]).toMatch(
      /"sniff" is not a terminal filter/,
    );
  });
});

describe("typed_per_filter_config", () => {
  const route = (entries: string) =>
    http(
      `          - ${ROUTER}`,
      `[{match: {prefix: /}, direct_response: {status: 200}, typed_per_filter_config: {${entries}}}]`,
    );
  const per = (text: string) =>
    hcm(text).route_config.virtual_hosts[0]!.routes[0]!.typed_per_filter_config as unknown;

  it("is checked by the filter's own schema for routes", () => {
    const text = route(
      `b: {"@type": ${TYPES}.http.buffer.v3.BufferPerRoute, buffer: {max_request_bytes: 7}}`,
    );
    expect(per(text)).toEqual({
      b: { name: "b", package: "http/buffer", config: { buffer: { max_request_bytes: 7 } } },
    });
  });

  it("takes Envoy's FilterConfig off", () => {
    const type = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    const inner = `{"@type": ${TYPES}.http.buffer.v3.BufferPerRoute, disabled: true}`;
    expect(
      per(
        route(
          `http/buffer: {"@type": ${type}, disabled: true}, b: {"@type": ${type}, config: ${inner}}`,
        ),
      ),
    ).toEqual({
      "http/buffer": {
        name: "http/buffer",
        package: "http/buffer",
        config: undefined,
        disabled: true,
      },
      b: { name: "b", package: "http/buffer", config: { disabled: true }, disabled: false },
    });
  });

  it("takes disabled alone for Envoy's FilterConfig, where the package has no such field", () => {
    expect(per(route("shield: {disabled: true}"))).toMatchObject({
      shield: { package: "http/shield", config: undefined, disabled: true },
    });
    expect(per(route("shield: {disabled: false}"))).toMatchObject({
      shield: { package: "http/shield", config: undefined, disabled: false },
    });
    expect(per(route("http/buffer: {disabled: true}"))).toMatchObject({
      "http/buffer": { package: "http/buffer", config: { disabled: true } },
    });
  });
  it("takes an empty config in FilterConfig for none", () => {
    const type = "type.googleapis.com/envoy.config.route.v3.FilterConfig";
    expect(per(route(`http/buffer: {"@type": ${type}, config: {}}`))).toEqual({
      "http/buffer": {
        name: "http/buffer",
        package: "http/buffer",
        config: undefined,
        disabled: false,
      },
    });
  });

  it("takes the short form of a dropped-in filter", () => {
    expect(per(route("shield: {limit: 3}"))).toEqual({
      shield: { name: "shield", package: "http/shield", config: { limit: 3 } },
    });
    expect(errors(route("shield: {limmit: 3}"))).toContainEqual(
      expect.stringMatching(/unknown field "limmit"; did you mean "limit"\?$/),
    );
  });

  it("needs a type for anything else", () => {
    expect(errors(route("other: {limit: 3}"))[0]).toMatch(
      /typed_per_filter_config\.other: "@type" is required$/,
    );
  });
});
