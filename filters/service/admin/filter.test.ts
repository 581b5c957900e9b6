import { ConfigError } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import admin from "./filter.ts";

/** What these tests read of Envoy's Listener. */
interface Listener {
  readonly address: unknown;
  readonly filter_chains: readonly { readonly filters: readonly { readonly config: unknown }[] }[];
}

const listener = (config: unknown) =>
  new TestContext().setup(admin, { access_log: [], ...(config as object) }).listener as
    | Listener
    | undefined;

const hcm = (config: unknown) =>
  listener(config)!.filter_chains[0]!.filters[0]!.config as Record<string, unknown>;

const address = { socket_address: { address: "127.0.0.1", port_value: 9901 } };

it("brings a listener whose only HTTP filter answers for admin", () => {
  expect(listener({ address })).toMatchObject({ name: "admin", stat_prefix: "admin", address });
  expect(hcm({ address })).toMatchObject({
    stat_prefix: "admin",
    http_filters: [{ name: "http/admin" }],
    access_log: [],
  });
});

it("is plain JSON, since core sends it between threads", () => {
  const config = listener({ address });
  expect(JSON.parse(JSON.stringify(config))).toEqual(config);
});

it("has no listener without an address", () => {
  expect(listener({})).toBeUndefined();
});

it("listens on a unix socket", () => {
  const pipe = { pipe: { path: "/run/admin", mode: 0o600 } };
  expect(listener({ address: pipe })!.address).toEqual(pipe);
});

it("logs to where the config says, the old way too", () => {
  const log = { name: "f", package: "access_log/file", config: { path: "/a" } };
  expect(hcm({ address, access_log: [log], access_log_path: "/b" }).access_log).toEqual([
    { name: "access_log/file", config: { path: "/a" } },
    { name: "access_log/file", config: { path: "/b" } },
  ]);
});

it("takes IPv6 addresses and no names", () => {
  const at = (host: string) => ({ address: { socket_address: { address: host, port_value: 1 } } });
  expect(listener(at("::1"))!.address).toEqual(at("::1").address);
  expect(() => listener(at("localhost"))).toThrow(ConfigError);
  expect(() => listener({ address: {} })).toThrow(/is empty/);
});
