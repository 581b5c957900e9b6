import { createHash } from "node:crypto";
import type { ClientHello } from "@tsproxy/sdk";
import { expect, test } from "vitest";
import { md5, sha256 } from "./digest.ts";
import { ja3, ja4 } from "./fingerprint.ts";

const hex = (list: string) => list.split(",").map((id) => Number.parseInt(id, 16));
const numbers = (list: string) => list.split("-").map(Number);

test("fingerprints of Chrome are those that are published of it", () => {
  const chrome: ClientHello = {
    serverName: "tls.example",
    alpn: ["h2", "http/1.1"],
    legacyVersion: 771,
    // The first of each list is GREASE.
    cipherSuites: [
      0x1a1a,
      ...numbers("4865-4866-4867-49195-49199-49196-49200-52393-52392-49171-49172-156-157-47-53"),
    ],
    extensions: [0x2a2a, ...numbers("45-51-16-65037-23-17613-0-11-10-43-65281-35-18-5-13-27")],
    groups: numbers("4588-29-23-24"),
    pointFormats: [0],
    signatureAlgorithms: hex("0403,0804,0401,0503,0805,0501,0806,0601"),
    versions: [0x3a3a, 0x0304, 0x0303],
    keyShares: [],
    asksForStatus: true,
  };
  expect(ja3(chrome)).toBe("98487aa16281980e7d1120d399efb6a4");
  expect(ja4(chrome)).toBe("t13d1516h2_8daaf6152771_d8a2da3f94cd");
  const bare = { ...chrome, alpn: [], extensions: [], cipherSuites: [], versions: [] };
  expect(ja4(bare)).toBe("t12i000000_000000000000_000000000000");
  expect(ja4({ ...chrome, alpn: ["\u00ab-\u00cd"] }).slice(0, 10)).toBe("t13d1516ad");
});

test("digests are those of OpenSSL, whatever the length", () => {
  for (let size = 0; size < 200; size++) {
    const text = "4865-4866,".repeat(20).slice(0, size);
    expect(md5(text)).toBe(createHash("md5").update(text).digest("hex"));
    expect(sha256(text)).toBe(createHash("sha256").update(text).digest("hex"));
  }
});
