import net from "node:net";
import tls from "node:tls";
import { expect, test } from "vitest";
import { Chunk } from "./bytes.ts";
import { readClientHello } from "./client-hello.ts";

/** What Node's own TLS client says first. */
function helloOf(options: tls.ConnectionOptions): Promise<Buffer> {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => {
      socket.once("data", (bytes) => {
        resolve(bytes);
        socket.destroy();
        server.close();
      });
      socket.on("error", () => {});
    });
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as net.AddressInfo;
      tls.connect({ port, host: "127.0.0.1", ...options }).on("error", () => {});
    });
  });
}
const read = (bytes: Uint8Array) => readClientHello(new Chunk(bytes, 0, bytes.length));

test("reads the name and the protocols that a client asks for", async () => {
  const bytes = await helloOf({ servername: "A.Example.TEST", ALPNProtocols: ["h2", "http/1.1"] });
  expect(read(bytes)).toMatchObject({ serverName: "a.example.test", alpn: ["h2", "http/1.1"] });
  const plain = await helloOf({ maxVersion: "TLSv1.2" });
  expect(read(plain)).toMatchObject({ serverName: "", alpn: [] });
});

test("reads what the client can verify, and whether it asks for a staple", async () => {
  const options = {
    ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256",
    ecdhCurve: "P-256:X25519",
    sigalgs: "ecdsa_secp256r1_sha256:rsa_pss_rsae_sha256",
  };
  const old = await helloOf({ ...options, maxVersion: "TLSv1.2" });
  expect(read(old)).toMatchObject({
    cipherSuites: expect.arrayContaining([0xc02b]),
    groups: [23, 29],
    signatureAlgorithms: [0x0403, 0x0804],
    versions: [],
    asksForStatus: false,
  });
  const recent = await helloOf({ requestOCSP: true } as tls.ConnectionOptions);
  expect(read(recent)).toMatchObject({ versions: [0x0304, 0x0303], asksForStatus: true });
});

test("waits for every byte, and no longer", async () => {
  const bytes = await helloOf({ servername: "a.test" });
  for (let n = 0; n < bytes.length; n++) expect(read(bytes.subarray(0, n)), `${n}`).toBe("more");
  const more = Buffer.concat([bytes, Buffer.from([23, 3, 3, 0, 1, 0])]);
  expect(read(more)).toMatchObject({ serverName: "a.test" });
});

test("puts a message together that is spread over records", async () => {
  const bytes = await helloOf({ servername: "a.test" });
  const message = bytes.subarray(5);
  const records: Buffer[] = [];
  for (let at = 0; at < message.length; at += 3) {
    const part = message.subarray(at, at + 3);
    records.push(Buffer.from([22, 3, 1, 0, part.length]), part);
  }
  const spread = Buffer.concat(records);
  expect(read(spread)).toMatchObject({ serverName: "a.test" });
  expect(read(spread.subarray(0, -1))).toBe("more");
});

test("knows what is not TLS by the first bytes that say so", () => {
  expect(read(Buffer.from("GET / HTTP/1.1\r\n"))).toBe("none");
  expect(read(Buffer.from([22, 2]))).toBe("none");
  expect(read(Buffer.from([22, 3, 1, 0, 1, 2]))).toBe("none");
  expect(read(Buffer.from([22, 3, 1, 0, 0]))).toBe("none");
  expect(read(Buffer.from([22, 3, 1, 255, 255]))).toBe("none");
});

test("bytes that were changed on the way never make it throw", async () => {
  const bytes = await helloOf({ servername: "a.test", ALPNProtocols: ["h2"] });
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % below;
  };
  for (let round = 0; round < 20_000; round++) {
    const changed = Buffer.from(bytes);
    for (let k = random(4); k >= 0; k--) changed[random(changed.length)] = random(256);
    const found = read(changed.subarray(0, random(changed.length + 1)));
    expect(typeof found === "string" || typeof found.serverName === "string").toBe(true);
  }
});
