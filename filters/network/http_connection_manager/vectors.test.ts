import { existsSync, readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { parse } from "yaml";
import codec from "../../codec/http1/filter.ts";
import router from "../../http/router/filter.ts";
import { TestProxy } from "./test-proxy.ts";

/** What Envoy 1.40 answered to single requests; it lies beside the project, where there is a copy at all. */
const FOLDER = new URL("../../../../shared/corpus/observed-1.40/", import.meta.url);

interface Case {
  readonly listener: string;
  readonly request: {
    readonly method: string;
    readonly path: string;
    readonly headers: [string, string][];
  };
  readonly status: number;
  readonly headers: Record<string, string>;
  readonly body: string;
}

const present = existsSync(new URL("vectors.json", FOLDER));

describe.skipIf(!present)("answers as Envoy 1.40 did (needs shared/corpus)", () => {
  const read = (name: string) => readFileSync(new URL(name, FOLDER), "utf8");
  const cases: Case[] = present ? JSON.parse(read("vectors.json")).cases : [];
  const configs = new Map<string, object>();
  for (const listener of present ? parse(read("vectors.yaml")).static_resources.listeners : []) {
    const {
      "@type": _,
      http_filters: __,
      ...config
    } = listener.filter_chains[0].filters[0].typed_config;
    configs.set(listener.name, config);
  }

  it.each([...configs.keys()])("on listener %s", (name) => {
    const p = new TestProxy({ codec, router });
    Object.assign(p.cx.node, { address: "192.0.2.2" });
    p.start(configs.get(name)!);
    for (const c of cases.filter((each) => each.listener === name)) {
      expect(
        ask(p, c.request),
        `${c.request.method} ${c.request.path} ${c.request.headers}`,
      ).toEqual({
        status: c.status,
        headers: c.headers,
        body: c.body,
      });
    }

    function ask(proxy: TestProxy, { method, path, headers }: Case["request"]) {
      const lines = headers.some(([n]) => n.toLowerCase() === "host")
        ? headers
        : [["Host", "h.test"], ...headers];
      const client = proxy.connect((connection) => {
        connection.remoteAddress = { ip: "127.0.0.1", port: 40000 };
      });
      client.send(
        `${method} ${path} HTTP/1.1\r\n${lines.map(([n, v]) => `${n}: ${v}\r\n`).join("")}Connection: close\r\n\r\n`,
      );
      const kept = name.startsWith("xff_")
        ? /^x-(?:xff|remote|int|ext|proto|rt)$/
        : /^(?:location|x-path)$/;
      return parseResponse(client.connection.take(), kept);
    }
  });
});

/** Status, the headers that the recording has kept, body. */
function parseResponse(text: string, kept: RegExp) {
  const [head = "", ...rest] = text.split("\r\n\r\n");
  const [statusLine = "", ...lines] = head.split("\r\n");
  const headers: Record<string, string> = {};
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    if (kept.test(name)) headers[name] = line.slice(colon + 2);
  }
  return { status: Number(statusLine.split(" ")[1]), headers, body: rest.join("\r\n\r\n") };
}
