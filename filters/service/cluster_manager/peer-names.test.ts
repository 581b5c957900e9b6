import type { BalancerContext } from "@tsproxy/sdk";
import { requestHeaders, TestConnection } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { PeerNaming, peerNamesOf } from "./peer-names.ts";

const SNI = "envoy.network.upstream_server_name";
const NAMES = "envoy.network.upstream_subject_alt_names";

function client(state: Record<string, string>): BalancerContext {
  const downstream = new TestConnection();
  for (const [key, value] of Object.entries(state)) downstream.setFilterState(key, value);
  return { downstream, head: requestHeaders("GET", "/", "host", "host.test") };
}

it("takes a server's names from filter state, before those of the request", () => {
  const naming = PeerNaming.of({ auto_sni: true, auto_san_validation: true });
  expect(peerNamesOf(naming, client({}))?.options.serverName).toBe("host.test");
  expect(peerNamesOf(naming, client({ [SNI]: "state.test" }))?.options).toEqual({
    serverName: "state.test",
    subjectAltNames: ["host.test"],
  });
  expect(peerNamesOf(undefined, client({ [NAMES]: "a.test,b.test" }))?.options).toEqual({
    subjectAltNames: ["a.test", "b.test"],
  });
});

it("keeps connections of different names apart, and drops a name that TLS cannot carry", () => {
  const key = (state: Record<string, string>) => peerNamesOf(undefined, client(state))?.key;
  expect(key({ [SNI]: "a.test" })).not.toBe(key({ [SNI]: "b.test" }));
  expect(key({ [SNI]: "a.test" })).not.toBe(key({ [NAMES]: "a.test" }));
  expect(peerNamesOf(undefined, client({ [SNI]: "a\nb" }))?.options).toEqual({});
  expect(peerNamesOf(undefined, client({}))).toBeUndefined();
});
