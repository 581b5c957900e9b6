import { expect, test } from "vitest";
import { get } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { DevSession } from "./dev-session.ts";
import { Proxy } from "./proxy.ts";

test("what pack makes works in another proxy, whose log names lines of the source", async () => {
  const session = new DevSession();
  let proxy: Proxy | undefined;
  try {
    expect(session.run("filter", "new", "hello").status).toBe(0);
    const file = "filters/hello/filter.ts";
    const source = session.read(file);
    const lines = source.split("\n");
    const at = lines.findIndex((line) => line.includes("headers.set("));
    lines[at] = `${lines[at]} if (headers.status === 418) throw new Error("a teapot");`;
    session.write(file, lines.join("\n"));

    const packed = session.run("filter", "pack", "hello", "-o", "out", "--json");
    expect(JSON.parse(packed.stdout)).toEqual({
      built: [
        {
          package: "http/hello",
          version: "0.1.0",
          file: "out/hello-0.1.0.js",
          bytes: Buffer.byteLength(session.read("out/hello-0.1.0.js")),
          hash: expect.stringMatching(/^[\w-]+$/),
        },
      ],
    });
    const routes = [direct("/teapot", "", 418), direct("/", "there\n")];
    const filters = [{ name: "hello", config: { value: "packed" } }];
    proxy = await Proxy.start({
      config: bootstrap([listener("main", http(routes, {}, filters))]),
      files: { "filters/hello-0.1.0.js": session.read("out/hello-0.1.0.js") },
    });
    const { headers, text } = await get(proxy.port("main"), "/");
    expect([headers["x-hello"], text]).toEqual(["packed", "there\n"]);
    expect((await get(proxy.port("main"), "/teapot")).status).toBe(500);
    const fault = await proxy.line(/a teapot/);
    expect(fault.msg).toContain(`fault: http/hello: filters/hello/filter.ts:${at + 1}:`);
  } finally {
    await proxy?.stop();
    await session.end();
  }
});
