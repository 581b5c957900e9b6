import { defineTransport, type HostSpec, Type } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import { Transports } from "./transports.ts";

it("chooses a transport by the host's metadata, and for a check by what the check says", () => {
  const cx = new TestContext();
  cx.role = "control";
  const transport = (name: string) => {
    const setup = () => ({ name }) as never;
    cx.define(`transport/${name}`, defineTransport({ name, config: Type.Object({}), setup }));
    return { name, package: `transport/${name}`, config: {} };
  };
  const [tls, plain] = [transport("tls"), transport("plain")];
  const matches = [{ name: "open", match: { open: true }, transport_socket: plain }];
  const config = { transport_socket: tls, transport_socket_matches: matches };
  const transports = new Transports(cx, config, "cluster.c.");
  const spec = (open: boolean) =>
    ({
      metadata: { filter_metadata: { "envoy.transport_socket_match": { open } } },
    }) as HostSpec & {
      metadata: unknown;
    };
  const nameOf = (slot: ReturnType<Transports["choose"]>) => slot?.ref.name;
  expect([true, false].map((open) => nameOf(transports.choose(spec(open))))).toEqual([
    "plain",
    "tls",
  ]);
  expect(nameOf(transports.chooseForCheck(spec(false), { open: true }))).toBe("plain");
  // A check without criteria uses the host's transport, which is counted already.
  expect(nameOf(transports.chooseForCheck(spec(false), undefined))).toBe("tls");
  expect(cx.stats.value("cluster.c.open.total_match_count")).toBe(2);
  expect(cx.stats.value("cluster.c.default.total_match_count")).toBe(1);
});
