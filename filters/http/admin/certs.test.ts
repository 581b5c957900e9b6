import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import { certs } from "./certs.ts";
import { CoreData } from "./core-data.ts";

test("/certs shows what each context has loaded, as Envoy does", () => {
  const cx = new TestContext();
  const core = new CoreData(cx);
  const certificate = {
    path: "a.pem",
    serial: "0a1b",
    names: [
      { type: "DNS", value: "a.test" },
      { type: "EMAIL", value: "x@a.test" },
      { type: "URI", value: "spiffe://a" },
    ],
    notBefore: Date.UTC(2020, 0, 1),
    notAfter: Date.now() + 86_400_000 * 2.5,
  };
  const expired = { ...certificate, path: "<inline>", names: [], notAfter: Date.UTC(2021, 0, 1) };
  cx.publish("core.certificates", [{ trusted: [expired], chains: [certificate] }]);
  const { certificates } = JSON.parse(
    [...(certs({} as never, core).body as Iterable<string>)].join(""),
  );
  expect(certificates).toHaveLength(1);
  expect(certificates[0].ca_cert[0]).toMatchObject({
    path: "<inline>",
    days_until_expiration: "0",
    expiration_time: "2021-01-01T00:00:00Z",
  });
  expect(certificates[0].cert_chain[0]).toMatchObject({
    path: "a.pem",
    serial_number: "0a1b",
    subject_alt_names: [{ dns: "a.test" }, { uri: "spiffe://a" }],
    days_until_expiration: "2",
    valid_from: "2020-01-01T00:00:00Z",
  });
});
