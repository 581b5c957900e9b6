import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const dir = mkdtempSync(path.join(tmpdir(), "tsproxy-route-"));
afterAll(() => rmSync(dir, { recursive: true }));

const bin = new URL("../bin/tsproxy.js", import.meta.url).pathname;
function tsproxy(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [bin, "route", ...args], {
    cwd: dir,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}
const file = (name: string, text: string): string => {
  writeFileSync(path.join(dir, name), text);
  return name;
};

const TABLE = `
virtual_hosts:
- name: shop
  domains: [shop.test]
  routes:
  - match: { path: /old }
    redirect: { path_redirect: /new }
  - match: { prefix: /api, headers: [{ name: x-v, string_match: { exact: "2" } }] }
    route: { cluster: v2, prefix_rewrite: /v2 }
  - name: rest
    match: { prefix: / }
    route: { cluster: web }
    response_headers_to_add: [{ header: { key: x-from, value: web } }]
`;

/** A bootstrap whose route table and HTTP filters say what nothing here implements. */
const PARTLY = `
static_resources:
  listeners:
  - name: front
    address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          http_filters:
          - name: envoy.filters.http.ext_authz
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz }
          - name: envoy.filters.http.router
            typed_config: { "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router }
          route_config:
            virtual_hosts:
            - name: shop
              domains: ["*"]
              typed_per_filter_config:
                envoy.filters.http.ext_authz:
                  "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute
                  disabled: true
              routes:
              - { name: rest, match: { prefix: / }, route: { cluster: web } }
  clusters: [{ name: web }]
`;

describe("filters that are not implemented here", () => {
  it("are named in a warning and left out, and the routes are told", () => {
    const partly = file("partly.yaml", PARTLY);
    const told = tsproxy("explain", partly, "--request", "GET http://a.test/x");
    expect(told.stdout).toMatch(/route: .*rest/);
    expect(told.stderr).toMatch(
      /^warning: partly\.yaml:14:\d+: .*Envoy's envoy\.filters\.http\.ext_authz is not implemented here$/m,
    );
    expect(told.stderr).toMatch(/^warning: partly\.yaml:\d+:\d+: .*ExtAuthzPerRoute" is not/m);
    expect(told.status).toBe(0);
  });
});

describe("route check", () => {
  const table = file("table.yaml", TABLE);
  const test = (name: string, input: object, validate: object) => ({
    test_name: name,
    input: { authority: "shop.test", method: "GET", ...input },
    validate,
  });
  const v2 = [{ key: "x-v", value: "2" }];
  const good = [
    test(
      "api",
      { path: "/api/x", additional_request_headers: v2 },
      {
        cluster_name: "v2",
        path_rewrite: "/v2/x",
        virtual_host_name: "shop",
      },
    ),
    test("old", { path: "/old", ssl: true }, { path_redirect: "https://shop.test/new" }),
  ];

  it("passes what the table does, and tells its coverage", () => {
    const tests = file("good.json", JSON.stringify({ tests: good }));
    const { status, stdout } = tsproxy("check", table, tests, "--details");
    expect(stdout).toBe("api\nold\nCurrent route coverage: 66.6667%\n");
    expect(status).toBe(0);
    expect(tsproxy("check", table, tests, "-f", "90").status).toBe(1);
  });

  it("tells what is otherwise", () => {
    const bad = test(
      "rest",
      { path: "/x" },
      {
        cluster_name: "v2",
        response_header_fields: [{ key: "x-from", value: "web" }],
      },
    );
    const tests = file("bad.json", JSON.stringify({ tests: [...good, bad] }));
    const { status, stdout, stderr } = tsproxy("check", "-c", table, "-t", tests, "-o", "out.json");
    expect(stderr).toBe("rest\nexpected: [v2], actual: [web], test type: cluster_name\n");
    expect([status, stdout]).toEqual([1, ""]);
    const { test_results } = JSON.parse(readFileSync(path.join(dir, "out.json"), "utf8"));
    expect(test_results[0]).toEqual({ test_name: "api", test_passed: true });
    expect(test_results[2].failures).toEqual([
      { what: "cluster_name", expected: "v2", actual: "web" },
    ]);
  });

  it("names the routes that no test is about", () => {
    const tests = file("good.json", JSON.stringify({ tests: good }));
    expect(tsproxy("check", table, tests, "--detailed-coverage").stdout).toBe(
      "Missing test for host: shop, route name: rest-routes[2]\nCurrent route coverage: 66.6667%\n",
    );
    // Three of five facts of one route, one of two of the other.
    expect(tsproxy("check", table, tests, "--covall").stdout).toBe(
      'Missing test for host: shop, route: prefix: "/"\nCurrent route coverage: 36.6667%\n',
    );
  });

  it("counts each of weighted clusters", () => {
    const weighted = file(
      "weighted.yaml",
      `
virtual_hosts:
- name: w
  domains: ["*"]
  routes:
  - match: { prefix: / }
    route: { weighted_clusters: { clusters: [{ name: a, weight: 30 }, { name: b, weight: 70 }] } }
`,
    );
    const tests = (...values: number[]) =>
      file(
        "weighted.json",
        JSON.stringify({
          tests: values.map((random_value) =>
            test("w", { path: "/", random_value }, { cluster_name: random_value < 30 ? "a" : "b" }),
          ),
        }),
      );
    expect(tsproxy("check", weighted, tests(3)).stdout).toBe("Current route coverage: 50%\n");
    expect(tsproxy("check", weighted, tests(3, 40)).stdout).toBe("Current route coverage: 100%\n");
  });
});

// Envoy's own tables are not part of this repository: without them beside it these are skipped.
const corpus = new URL("../../../shared/corpus/envoy/", import.meta.url).pathname;

describe.skipIf(!existsSync(corpus))("Envoy's tables", () => {
  const given = (era: string, name: string) =>
    path.join(corpus, era, "test/tools/router_check/test/config", name);

  it.each([
    ["v1.37-dev", "DirectResponse", "proto.json", "100%"],
    ["v1.37-dev", "DynamicMetadata", "proto.json", "100%"],
    ["v1.37-dev", "Redirect", "proto.json", "88.8889%"],
    ["v1.37-dev", "Redirect4", "proto.json", "100%"],
    ["v1.37-dev", "Runtime", "proto.json", "100%"],
    ["v1.37-dev", "TestRoutes", "proto.json", "64.7059%"],
    ["v1.15-dev", "DirectResponse", "proto.json", "100%"],
    ["v1.15-dev", "TestRoutes", "proto.json", "64.7059%"],
    ["v1.11-dev", "Redirect", "json", "100%"],
    ["v1.11-dev", "TestRoutes", "proto.json", "62.5%"],
    ["v1.11-dev", "TestRoutes", "json", "62.5%"],
    ["v1.9-dev", "Redirect", "json", "100%"],
  ])("of %s: %s does what its tests (%s) expect", (era, name, form, coverage) => {
    const tests = given(era, `${name}.golden.${form}`);
    const { status, stdout } = tsproxy("check", given(era, `${name}.yaml`), tests);
    expect([status, stdout]).toEqual([0, `Current route coverage: ${coverage}\n`]);
  });

  it("fail the tests that are meant to, in the tool's words", () => {
    const tests = given("v1.37-dev", "TestRoutesFailures.golden.proto.json");
    const { status, stderr } = tsproxy("check", given("v1.37-dev", "TestRoutes.yaml"), tests);
    const type = "test type: response_header_matches";
    expect(stderr.split("\n").slice(1, -1)).toEqual([
      `expected: [content-type: text/plain], actual: NOT [content-type: text/plain], ${type}.string_match.exact`,
      `actual: [content-length: 25], ${type}.range_match`,
      `expected: [x-ping-response: pong], actual: [x-ping-response: yes], ${type}.string_match.exact`,
      `expected: [has(x-ping-response):false], actual: [has(x-ping-response):true], ${type}.present_match`,
      `expected: [has(x-pong-response):true], actual: [has(x-pong-response):false], ${type}.present_match`,
    ]);
    expect(status).toBe(1);
  });

  it("tell the routes that their tests leave out", () => {
    const [table, tests] = ["TestRoutes.yaml", "TestRoutes.golden.proto.json"];
    const { stdout } = tsproxy(
      "check",
      given("v1.37-dev", table),
      given("v1.37-dev", tests),
      "--covall",
    );
    expect(stdout).toContain('Missing test for host: www2_staging, route: prefix: "/"\n');
    expect(stdout).toContain(
      'Missing test for host: default, route: prefix: "/api/application_data"\n',
    );
  });
});

describe("route explain", () => {
  const config = file(
    "envoy.yaml",
    JSON.stringify({
      static_resources: {
        clusters: ["web", "v2"].map((name) => ({ name, load_assignment: { cluster_name: name } })),
        listeners: [
          {
            name: "main",
            address: { socket_address: { address: "127.0.0.1", port_value: 8080 } },
            filter_chains: [
              {
                filters: [
                  {
                    name: "network/http_connection_manager",
                    config: {
                      stat_prefix: "main",
                      route_config: {
                        virtual_hosts: [
                          {
                            name: "shop",
                            domains: ["shop.test"],
                            routes: [
                              { match: { path: "/old" }, redirect: { path_redirect: "/new" } },
                              {
                                match: { path: "/h" },
                                route: {
                                  cluster_header: "x-c",
                                  cluster_not_found_response_code: "NOT_FOUND",
                                },
                              },
                              {
                                name: "rest",
                                match: { prefix: "/" },
                                route: { cluster: "web", prefix_rewrite: "/w/" },
                              },
                            ],
                          },
                        ],
                      },
                      http_filters: [{ name: "http/router", config: {} }],
                    },
                  },
                ],
              },
            ],
          },
        ],
      },
    }),
  );

  const asked = (request: string, ...more: string[]) =>
    tsproxy("explain", config, "--request", request, ...more);

  it("names the route that serves a request, and why others do not", () => {
    const request = "GET http://shop.test/a?b";
    expect(asked(request).stdout).toBe(
      [
        "listener: main",
        "  filter chain: filter_chains[0]",
        "  virtual host: shop",
        '    not shop routes[0]: the path does not match path "/old"',
        '    not shop routes[1]: the path does not match path "/h"',
        "  route: shop routes[2] (rest)",
        "  cluster: web",
        "  rewritten to: shop.test/w/a?b",
        "",
      ].join("\n"),
    );
    const other = ["--request", request, "-H", "host: other.test"];
    expect(tsproxy("explain", config, ...other).stdout).toContain(
      'virtual host: none has the domain "other.test": 404',
    );
  });

  it("says what a request gets whose cluster is not there", () => {
    const to = (...lines: string[]) =>
      asked("GET http://shop.test/h", ...lines.flatMap((line) => ["-H", line])).stdout;
    expect(to("x-c: v2")).toContain("  cluster: v2\n");
    expect(to("x-c: gone")).toContain("  cluster: gone: there is none of that name: 404\n");
    expect(to()).toContain("  cluster: none: the header that names it is missing: 404\n");
  });

  it("asks as a client would: without user information, and CONNECT without a path", () => {
    expect(asked("GET http://u:p@shop.test/a").stdout).toContain("rewritten to: shop.test/w/a\n");
    const tunnel = asked("CONNECT http://shop.test").stdout;
    expect(tunnel).toContain('not shop routes[2] (rest): the path does not match prefix "/"');
  });

  it("takes no version for a part of the path", () => {
    const told = asked("GET http://shop.test/a HTTP/1.1");
    expect(told.status).toBe(1);
    expect(told.stderr).toContain('write "GET https://host/path"');
  });

  it("says why a URL with a fragment is refused", () => {
    const told = asked("GET http://shop.test/a#b");
    expect(told.status).toBe(1);
    expect(told.stderr).toContain(
      '--request "GET http://shop.test/a#b": a client keeps the "#" and what follows to itself; leave them out, or write %23',
    );
  });
});
