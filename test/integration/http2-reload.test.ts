import { appendFileSync, readFileSync } from "node:fs";
import http2 from "node:http2";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, expect, test } from "vitest";
import { Authority } from "./certificates.ts";
import { eventually } from "./client.ts";
import { bootstrap, cluster, http, type Json, listener, route } from "./config.ts";
import { Proxy } from "./proxy.ts";
import { ShippedCopy } from "./shipped-copy.ts";

const TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext";
const authority = new Authority("ours");
const identity = authority.issue("site", "site", "DNS:localhost");

/** To be edited. */
const shipped = new ShippedCopy();
let proxy: Proxy;
let origin: http2.Http2Server;
/** Connections that the origin has accepted. */
let accepted = 0;
/** Answers that wait for their end. */
const open: http2.ServerHttp2Stream[] = [];

beforeAll(async () => {
  origin = http2.createServer();
  origin.on("session", () => accepted++);
  origin.on("stream", (stream, headers) => {
    stream.on("error", () => {});
    stream.respond({ ":status": 200 });
    if (headers[":path"] !== "/slow") return void stream.end("whole");
    stream.write("first ");
    open.push(stream);
  });
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  const filter = http([route("/", "origin")]);
  const secure: Json = {
    name: "tls",
    typed_config: {
      "@type": TLS,
      common_tls_context: {
        alpn_protocols: ["h2"],
        tls_certificates: [
          {
            certificate_chain: { filename: identity.certificate },
            private_key: { filename: identity.key },
          },
        ],
      },
    },
  };
  proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("plain", filter),
        {
          ...listener("secure", filter),
          filter_chains: [{ filters: [filter], transport_socket: secure }],
        },
      ],
      [
        cluster("origin", [(origin.address() as AddressInfo).port], {
          http2_protocol_options: {},
        }),
      ],
    ),
    concurrency: 1,
    env: { TSPROXY_SHIPPED_FILTERS: shipped.root },
  });
});
afterAll(async () => {
  await proxy?.stop();
  for (const stream of open) stream.destroy();
  origin?.close();
  authority.dispose();
  shipped.remove();
});

/** Saves other code of a shipped package that does the same. */
async function edit(name: string): Promise<void> {
  const file = shipped.file(name);
  const from = proxy.lines.length;
  const edits = readFileSync(file, "utf8").split("export const edit").length;
  appendFileSync(file, `\nexport const edit${edits} = ${edits};\n`);
  await proxy.line(new RegExp(`^reloaded ${name} `), from);
}

class Client {
  readonly session: http2.ClientHttp2Session;
  wentAway = false;
  closed = false;

  constructor(name: "plain" | "secure") {
    const scheme = name === "secure" ? "https" : "http";
    this.session = http2.connect(`${scheme}://localhost:${proxy.port(name)}`, {
      ca: authority.root.pem,
      lookup: (_host, _options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]),
    });
    this.session.on("error", () => {});
    this.session.on("goaway", () => {
      this.wentAway = true;
    });
    this.session.on("close", () => {
      this.closed = true;
    });
  }

  get(url: string): { readonly text: Promise<string>; readonly begun: Promise<void> } {
    const stream = this.session.request({ ":path": url });
    let text = "";
    const begun = new Promise<void>((resolve) => stream.once("data", () => resolve()));
    stream.setEncoding("utf8").on("data", (piece: string) => (text += piece));
    return {
      begun,
      text: new Promise((resolve, reject) => {
        stream.on("end", () => resolve(text));
        stream.on("error", reject);
      }),
    };
  }
}

test.each(["http/router", "balancer/round_robin"])(
  "new code of %s serves the next stream of an open connection, and cuts none",
  async (name) => {
    const client = new Client("plain");
    const slow = client.get("/slow");
    await slow.begun;
    await edit(name);
    expect(await client.get("/").text).toBe("whole");
    open.shift()!.end("last");
    expect(await slow.text).toBe("first last");
    expect([client.wentAway, client.closed]).toEqual([false, false]);
    client.session.close();
  },
);

test("new code of service/cluster_manager goes on with idle connections to upstreams", async () => {
  const client = new Client("plain");
  expect(await client.get("/").text).toBe("whole");
  const before = accepted;
  await edit("service/cluster_manager");
  expect(await client.get("/").text).toBe("whole");
  expect(accepted).toBe(before);
  const slow = client.get("/slow");
  await slow.begun;
  await edit("service/cluster_manager");
  open.shift()!.end("last");
  expect(await slow.text).toBe("first last");
  expect([client.wentAway, client.closed]).toEqual([false, false]);
  client.session.close();
});

test.each([
  ["codec/http2", "plain"],
  ["network/http_connection_manager", "plain"],
  ["transport/tls", "secure"],
] as const)(
  "new code of %s cuts no stream, and asks clients to come again",
  async (name, through) => {
    const client = new Client(through);
    const slow = client.get("/slow");
    await slow.begun;
    await edit(name);
    await eventually(
      () => client.wentAway,
      (went) => went,
      "GOAWAY",
    );
    const next = new Client(through);
    expect(await next.get("/").text).toBe("whole");
    expect(next.wentAway).toBe(false);
    open.shift()!.end("last");
    expect(await slow.text).toBe("first last");
    await eventually(
      () => client.closed,
      (closed) => closed,
      "the end of the old connection",
    );
    next.session.close();
  },
);
