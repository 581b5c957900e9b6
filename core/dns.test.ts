import { expect, test } from "vitest";
import { resolveName } from "./dns.ts";

test("an address stands for itself, whatever the family", async () => {
  expect(await resolveName("192.0.2.7", "V6_ONLY")).toEqual([{ ip: "192.0.2.7", ttl: 0 }]);
});

test("names of the hosts file need no server", async () => {
  const found = await resolveName("localhost", "V4_ONLY");
  expect(found).toEqual([{ ip: "127.0.0.1", ttl: 0 }]);
});
