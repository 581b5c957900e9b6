import net from "node:net";
import tls from "node:tls";
import { type AcceptedSocket, Chunk, type ListenerFilterFactory } from "@tsproxy/sdk";
import { TestContext } from "@tsproxy/sdk/testing";
import { expect, test } from "vitest";
import tlsInspector from "./filter.ts";

function begin(config: object = {}) {
  const cx = new TestContext();
  const all = { initial_read_buffer_size: 16_384, max_client_hello_size: 16_384, ...config };
  const factory = cx.setup(tlsInspector, all) as ListenerFilterFactory;
  const seen: unknown[] = [];
  const socket: AcceptedSocket = {
    setMetadata: (_, values) => seen.push(values),
    remoteAddress: { ip: "192.0.2.1", port: 1 },
    localAddress: { ip: "192.0.2.2", port: 2 },
    transportProtocol: "raw_buffer",
    serverName: "",
    applicationProtocols: [],
  };
  const filter = factory(socket);
  const give = (bytes: Uint8Array) => filter.onBytes(new Chunk(bytes, 0, bytes.length));
  return { cx, socket, give, seen };
}

function hello(options: tls.ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => {
      socket
        .on("error", () => {})
        .once("data", (bytes) => {
          resolve(bytes);
          socket.destroy();
          server.close();
        });
    });
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      tls.connect({ port, host: "127.0.0.1", ...options }).on("error", () => {});
    });
  });
}

test("tells the name and protocols of a TLS client, and takes nothing", async () => {
  const { cx, socket, give } = begin();
  const bytes = await hello({ servername: "a.test", ALPNProtocols: ["h2"] });
  expect(give(new Uint8Array(0))).toBe("more");
  expect(give(bytes.subarray(0, 100))).toBe("more");
  expect(give(bytes)).toBe(0);
  expect(socket).toMatchObject({
    transportProtocol: "tls",
    serverName: "a.test",
    applicationProtocols: ["h2"],
  });
  for (const name of ["tls_found", "sni_found", "alpn_found"])
    expect(cx.stats.value(`tls_inspector.${name}`)).toBe(1);
});

test("counts the bytes that tell: the ClientHello's records, or five that are none", async () => {
  const bytes = await hello({ servername: "a.test" });
  const taken = (given: Uint8Array) => {
    const { cx, give } = begin();
    give(given);
    return cx.stats.recorded.get("tls_inspector.bytes_processed");
  };
  expect(taken(Buffer.concat([bytes, Buffer.alloc(50)]))).toEqual([bytes.length]);
  const spread = [bytes.subarray(5, 7), bytes.subarray(7)].map((part) =>
    Buffer.concat([Buffer.of(22, 3, 1, part.length >> 8, part.length & 255), part]),
  );
  expect(taken(Buffer.concat([...spread, Buffer.alloc(50)]))).toEqual([bytes.length + 5]);
  expect(taken(Buffer.from("GET / HTTP/1.1\r\n"))).toEqual([5]);
  expect(taken(bytes.subarray(0, 100))).toEqual([]);
});

test("lets others pass as they are", () => {
  const { cx, socket, give } = begin();
  expect(give(Buffer.from("GET / HTTP/1.1\r\n"))).toBe(0);
  expect(socket.transportProtocol).toBe("raw_buffer");
  expect(cx.stats.value("tls_inspector.tls_not_found")).toBe(1);
});

test("closes on a ClientHello that never ends", () => {
  const { cx, give } = begin({ max_client_hello_size: 256 });
  const start = Buffer.alloc(300);
  start.set([22, 3, 1, 64, 0, 1, 0, 63, 252]);
  expect(give(start.subarray(0, 200))).toBe("more");
  expect(give(start)).toBe("close");
  expect(cx.stats.value("tls_inspector.client_hello_too_large")).toBe(1);
});

test("closes on a ClientHello that is too large, even if it came in one piece", async () => {
  const { cx, socket, give } = begin({ max_client_hello_size: 256 });
  expect(give(await hello({ servername: `${"a".repeat(60)}.${"b".repeat(60)}.test` }))).toBe(
    "close",
  );
  expect(socket.transportProtocol).toBe("raw_buffer");
  expect(cx.stats.value("tls_inspector.client_hello_too_large")).toBe(1);
});

test("waits for the first five bytes, and names BoringSSL's error for them", () => {
  const failure = (text: string) => {
    const { socket, give } = begin();
    expect(give(Buffer.from(text.slice(0, 4), "latin1"))).toBe("more");
    expect(give(Buffer.from(text, "latin1"))).toBe(0);
    return socket.transportFailure;
  };
  const named = (code: string) => `TLS_error|error:10000${code}:TLS_error_end`;
  expect(failure("POST / HTTP/1.1\r\n")).toBe(
    named("09c:SSL routines:OPENSSL_internal:HTTP_REQUEST"),
  );
  expect(failure("hello\n")).toBe(named("0f7:SSL routines:OPENSSL_internal:WRONG_VERSION_NUMBER"));
});

test("tells in metadata why it found no TLS", () => {
  const { seen, give } = begin();
  expect(give(Buffer.from("hello\n"))).toBe(0);
  expect(seen).toEqual([{ failure_reason: "ClientHelloNotDetected" }]);
});

test("makes fingerprints of a client's first words, where it is asked to", async () => {
  const bytes = await hello({ servername: "a.test", ALPNProtocols: ["h2"] });
  const plain = begin();
  plain.give(bytes);
  expect(plain.socket).not.toHaveProperty("ja3Fingerprint");
  const { socket, give } = begin({
    enable_ja3_fingerprinting: true,
    enable_ja4_fingerprinting: true,
  });
  give(bytes);
  expect(socket.ja3Fingerprint).toMatch(/^[0-9a-f]{32}$/);
  expect(socket.ja4Fingerprint).toMatch(/^t13d\d{4}h2_[0-9a-f]{12}_[0-9a-f]{12}$/);
});
