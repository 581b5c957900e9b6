import { expect, it } from "vitest";
import { HCM, load } from "./test-load.ts";
import { LARGE_CHARS } from "./unread.ts";

interface VirtualHost {
  readonly name: string;
  readonly domains: readonly string[];
  readonly routes: readonly unknown[];
}

const hosts: readonly VirtualHost[] = Array.from({ length: 1200 }, (_, k) => ({
  name: `v${k}`,
  domains: [`host${k}.test`],
  routes: [
    {
      match: { prefix: `/p${k}/` },
      route: { cluster: "a", timeout: "1.500s" },
    },
    { match: { prefix: "/" }, direct_response: { status: 200 } },
  ],
}));

function file(virtual_hosts: readonly unknown[]): string {
  const config = { "@type": `type.googleapis.com/${HCM.slice(HCM.indexOf("envoy."))}` };
  const manager = {
    ...config,
    stat_prefix: "s",
    route_config: { virtual_hosts },
    http_filters: [],
  };
  const listener = {
    address: { socket_address: { address: "127.0.0.1", port_value: 80 } },
    filter_chains: [{ filters: [{ name: "h", typed_config: manager }] }],
  };
  return JSON.stringify({ static_resources: { listeners: [listener] } }, undefined, 1);
}

/** What is found; the config and the dump as JSON, since the differences of two large objects take minutes to print. */
function loaded(text: string) {
  expect(text.length).toBeGreaterThan(LARGE_CHARS);
  const made = load(text, { file: "front.json" });
  const said = [...made.warnings, ...(made.ok ? [] : made.errors)];
  return {
    said: said.map(({ line, path, message, help }) => ({ line, path, message, help })),
    json: made.ok ? JSON.stringify([made.config, made.bootstrap]) : "",
  };
}

/** The same file; an escape in a key makes the reader take the map apart. */
function taken(text: string): string {
  return text.replaceAll('"domains"', '"\\u0064omains"');
}

it("loads a large table as if every virtual host had been taken apart", () => {
  const text = file(hosts);
  const made = loaded(text);
  expect(made.said).toEqual([]);
  expect(made.json === loaded(taken(text)).json).toBe(true);
});

const changes: readonly (readonly [what: string, (text: string) => string])[] = [
  ["an unknown field", (text) => text.replace('"/p234/"', '"/p234/", "prefixx": 1')],
  ["a field of the wrong type", (text) => text.replace('"/p234/"', "7")],
  ["a field that is written twice", (text) => text.replace('"/p234/"', '"/q/", "prefix": "/r/"')],
  ["two of a oneof", (text) => text.replace('"/p234/"', '"/p234/", "path": "/"')],
  ["a word that is no duration", (text) => text.replace('"1.500s"', '"1.5 seconds"')],
  ["a field that nothing implements", (text) => text.replace('"/p234/"', '"/p234/", "grpc": 1')],
  ["a broken rule", (text) => text.replace('"v234"', '""')],
  ["no JSON", (text) => text.replace('"/p234/"', "/p234/")],
  ["a text without an end", (text) => text.slice(0, -400)],
];
for (const [what, change] of changes)
  it(`says the same of ${what}`, () => {
    const text = change(file(hosts));
    const found = loaded(text);
    expect(found.said.length).toBeGreaterThan(0);
    expect(found.said).toEqual(loaded(taken(text)).said);
    expect(found.json === loaded(taken(text)).json).toBe(true);
  });

it("reads names in camel case and durations in other forms there", () => {
  const text = file(hosts);
  const odd = text.replace('"direct_response"', '"directResponse"').replace("1.500s", "1.5s");
  expect(loaded(odd).json === loaded(text).json).toBe(true);
});
