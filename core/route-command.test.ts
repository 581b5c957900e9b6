import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";

const dir = mkdtempSync(path.join(tmpdir(), "tsproxy-route-"));
afterAll(() => rmSync(dir, { recursive: true }));

const bin = new URL("./bin/tsproxy.js", import.meta.url).pathname;
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
    expect(stdout).toBe("api\nold\nCurrent route coverage: 66.67%\n");
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
    const { status, stdout } = tsproxy("check", table, tests);
    expect(stdout).toContain("rest\nexpected: [v2], actual: [web], test type: cluster_name\n");
    expect(status).toBe(1);
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

  it("names the route that serves a request, and why others do not", () => {
    const asked = ["explain", config, "--request", "GET http://shop.test/a?b"];
    expect(tsproxy(...asked).stdout).toBe(
      [
        "listener: main",
        "  filter chain: filter_chains[0]",
        "  virtual host: shop",
        '    not shop routes[0]: the path does not match path "/old"',
        "  route: shop routes[1] (rest)",
        "  cluster: web",
        "  rewritten to: shop.test/w/a?b",
        "",
      ].join("\n"),
    );
    expect(tsproxy(...asked, "-H", "host: other.test").stdout).toContain(
      'virtual host: none has the domain "other.test": 404',
    );
  });
});
