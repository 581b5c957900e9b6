import { afterAll, beforeAll, it } from "vitest";
import { RawClient } from "./client.ts";
import { bootstrap, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

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
  proxy = await Proxy.start({
    config: bootstrap([listener("main", {}, { filter_chains: [{ filters }] })], []),
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
