import { afterAll, beforeAll, expect, it } from "vitest";
import { get, RawClient } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

const MASKING = `
import { defineNetworkFilter, Type, utf8Encode } from "@tsproxy/sdk";
export default defineNetworkFilter({
  name: "masking",
  config: Type.Object({}),
  setup: () => ({
    create: () => ({
      onWrite(chunk) {
        chunk.replace(utf8Encode(chunk.text().replaceAll("secret", "******")));
      },
    }),
  }),
});
`;

let proxy: Proxy;
beforeAll(async () => {
  const script = `
    const lines: any = shared.counter("lines");
    function onData(data: any, conn: any) {
      if (data.text() === "bye\\n") { conn.send("so long, " + lines.add(1) + "\\n"); conn.close(); return; }
      if (data.text() === "throw\\n") throw new Error("on purpose");
      data.replace(data.text().toUpperCase());
    }`;
  const filters = [
    { name: "network/script", config: { inline: script } },
    {
      name: "envoy.filters.network.echo",
      typed_config: {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.echo.v3.Echo",
      },
    },
  ];
  const masking = `
    async function onWrite(data: any, conn: any) {
      const text = data.text();
      if (!text.includes("secret")) return;
      await new Promise((resolve) => setTimeout(resolve, 5));
      data.replace(text.replaceAll("secret", "******"));
    }`;
  const web = [
    { name: "network/script", config: { inline: masking } },
    http([direct("/", "the secret of secrets\n")]),
  ];
  // The same, among the shipped filters.
  const beside = [{ name: "masking", config: {} }, http([direct("/", "the secret of secrets\n")])];
  proxy = await Proxy.start({
    config: bootstrap(
      Object.entries({ main: filters, web, beside }).map(([name, own]) =>
        listener(name, {}, { filter_chains: [{ filters: own }] }),
      ),
      [],
    ),
    files: { "filters/masking.ts": MASKING },
    args: ["--trust", "masking"],
  });
});
afterAll(() => proxy?.stop());

it("a script of the config changes bytes, answers and closes, and its errors name the line", async () => {
  const one = await RawClient.connect(proxy.port("main"));
  one.send("hello\n");
  await one.until(({ text }) => text === "HELLO\n");
  one.send("bye\n");
  await one.until(({ text, ended }) => text.endsWith("so long, 1\n") && ended);
  const two = await RawClient.connect(proxy.port("main"));
  two.send("throw\n");
  await two.until(({ closed }) => closed);
  await proxy.line(/fault: network\/script: .*envoy\.json:\d+:\d+.*on purpose/);
});

it.each(["web", "beside"])("what goes to clients passes onWrite: %s", async (name) => {
  const client = await RawClient.connect(proxy.port(name));
  for (let k = 1; k <= 3; k++) {
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    await client.until(({ text }) => text.split("the ****** of ******s\n").length === k + 1);
  }
  const answers = await Promise.all(Array.from({ length: 20 }, () => get(proxy.port(name), "/")));
  for (const { body } of answers) expect(String(body)).toBe("the ****** of ******s\n");
});
