import http2 from "node:http2";
import https from "node:https";
import net from "node:net";
import tls from "node:tls";
import { afterAll, afterEach, expect, test } from "vitest";
import { Authority } from "./certificates.ts";
import { bootstrap, cluster, downstreamTls, http, listener, route, unlimited } from "./config.ts";
import { Proxy } from "./proxy.ts";

const SIZE = 48_000;
const authority = new Authority("bytes");
const { certificate, key } = authority.issue("site", "site", "DNS:localhost");
afterAll(() => authority.dispose());

const ends: (() => unknown)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

/** Answers with the path's letter, 48,000 times, and closes. */
async function closingOrigin(): Promise<number> {
  const server = net.createServer((socket) => {
    let text = "";
    socket.on("error", () => {});
    socket.on("data", (bytes: Buffer) => {
      text += bytes.toString("latin1");
      if (!text.includes("\r\n\r\n")) return;
      const letter = text.split(" ")[1]![1]!;
      const head = `HTTP/1.1 200 OK\r\nContent-Length: ${SIZE}\r\nConnection: close\r\n\r\n`;
      socket.end(head + letter.repeat(SIZE));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  ends.push(() => server.close());
  return (server.address() as net.AddressInfo).port;
}

async function start(env: Readonly<Record<string, string>>): Promise<Proxy> {
  const filter = http([route("/", "origin")]);
  const transport_socket = downstreamTls({ certificate, key });
  const proxy = await Proxy.start({
    config: bootstrap(
      [
        listener("plain", filter),
        { ...listener("secure", filter), filter_chains: [{ filters: [filter], transport_socket }] },
      ],
      [cluster("origin", [await closingOrigin()], unlimited)],
    ),
    concurrency: 1,
    env,
  });
  ends.push(() => proxy.stop());
  return proxy;
}

interface Counted {
  bytes: number;
  foreign: number;
}
function count(into: Counted, bytes: Buffer, letter: string): void {
  into.bytes += bytes.length;
  const code = letter.charCodeAt(0);
  for (const byte of bytes) if (byte !== code) into.foreign++;
}

/** Asks for much at once, and reads nothing of it until told to. */
interface LateReader {
  read(): Promise<Counted>;
}

function session(proxy: Proxy, secure: boolean): http2.ClientHttp2Session {
  const address = secure
    ? `https://localhost:${proxy.port("secure")}`
    : `http://127.0.0.1:${proxy.port("plain")}`;
  const made = http2.connect(address, {
    ca: authority.root.pem,
    lookup: (_host, _options, done) => done(null, [{ address: "127.0.0.1", family: 4 }]),
  });
  made.on("error", () => {});
  ends.push(() => made.destroy());
  return made;
}

function lateStreams(client: http2.ClientHttp2Session): LateReader {
  const streams = Array.from({ length: 90 }, () => client.request({ ":path": "/A" }));
  for (const stream of streams) stream.on("error", () => {}).pause();
  return {
    read: async () => {
      const counted = { bytes: 0, foreign: 0 };
      const all = streams.map(
        (stream) =>
          new Promise<void>((resolve) => {
            stream.on("data", (bytes: Buffer) => count(counted, bytes, "A"));
            stream.on("close", resolve).resume();
          }),
      );
      await Promise.all(all);
      return counted;
    },
  };
}

/** HTTP/1.1 over TLS, pipelined: heads are told apart by their size, which is the same for all. */
function latePipeline(proxy: Proxy): LateReader {
  const socket = tls.connect({
    port: proxy.port("secure"),
    host: "127.0.0.1",
    servername: "localhost",
    ca: authority.root.pem,
    ALPNProtocols: ["http/1.1"],
  });
  socket.on("error", () => {}).pause();
  socket.write("GET /A HTTP/1.1\r\nHost: x\r\n\r\n".repeat(90));
  ends.push(() => socket.destroy());
  return {
    read: () =>
      new Promise((resolve) => {
        const counted = { bytes: 0, foreign: 0 };
        socket.on("data", (bytes: Buffer) => {
          for (const byte of bytes) {
            // Neither letter occurs in what the proxy writes into a head.
            if (byte === 0x41) counted.bytes++;
            else if (byte === 0x42) counted.foreign++;
          }
          if (counted.bytes >= 90 * SIZE) resolve(counted);
        });
        socket.on("close", () => resolve(counted)).resume();
      }),
  };
}

function overStream(client: http2.ClientHttp2Session): Promise<Counted> {
  const counted = { bytes: 0, foreign: 0 };
  const stream = client.request({ ":path": "/B" });
  return new Promise((resolve) => {
    stream.on("error", () => {}).on("data", (bytes: Buffer) => count(counted, bytes, "B"));
    stream.on("close", () => resolve(counted));
  });
}
function overTls(proxy: Proxy): Promise<Counted> {
  const counted = { bytes: 0, foreign: 0 };
  const options = {
    port: proxy.port("secure"),
    host: "localhost",
    family: 4,
    ca: authority.root.pem,
  };
  return new Promise((resolve) => {
    const request = https.get({ ...options, path: "/B", agent: false }, (response) => {
      response.on("data", (bytes: Buffer) => count(counted, bytes, "B"));
      response.on("close", () => resolve(counted));
    });
    request.on("error", () => resolve(counted));
  });
}

const TINY = { TSPROXY_RING: "8,8,2,2" };
test.each([
  ["HTTP/2", {}],
  ["HTTP/2 over TLS", {}],
  ["HTTP/1.1 over TLS", {}],
  ["HTTP/2", TINY],
  ["HTTP/2 over TLS", TINY],
  ["HTTP/1.1 over TLS", TINY],
] as const)("over %s nobody sees bytes of others, with a ring of %o", async (over, env) => {
  const proxy = await start(env);
  const secure = over.endsWith("TLS");
  const isHttp2 = over.startsWith("HTTP/2");
  const late = isHttp2 ? lateStreams(session(proxy, secure)) : latePipeline(proxy);
  const other = isHttp2 ? session(proxy, secure) : undefined;
  const ask = () => (other === undefined ? overTls(proxy) : overStream(other));
  const before = await Promise.all(Array.from({ length: 6 }, ask));
  const [mine, ...others] = await Promise.all([
    late.read(),
    ...Array.from({ length: 6 }, async () => {
      const first = await ask();
      const second = await ask();
      return { bytes: first.bytes + second.bytes, foreign: first.foreign + second.foreign };
    }),
  ]);
  expect(mine).toEqual({ bytes: 90 * SIZE, foreign: 0 });
  for (const counted of before) expect(counted).toEqual({ bytes: SIZE, foreign: 0 });
  for (const counted of others) expect(counted).toEqual({ bytes: 2 * SIZE, foreign: 0 });
});
