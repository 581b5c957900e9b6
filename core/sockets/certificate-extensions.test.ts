import { X509Certificate } from "node:crypto";
import { readFileSync } from "node:fs";
import { afterAll, expect, test } from "vitest";
import { Authority } from "../../test/integration/certificates.ts";
import { extensionsOf } from "./certificate-extensions.ts";
import { revocationError, revocationLists } from "./revocation.ts";

const authority = new Authority("extensions");
afterAll(() => authority.dispose());
const names = [
  ...["DNS:*.a.test", "URI:spiffe://x/y", "IP:10.0.0.1", "IP:2001:db8::1", "email:me@a.test"],
  ...["otherName:1.3.6.1.4.1.311.20.2.3;UTF8:me@b.test", "RID:1.2.3"],
];
const issued = authority.issue("all", "all", names.join(","), {
  more: "keyUsage=digitalSignature,keyCertSign\n1.3.6.1.5.5.7.1.24=DER:30:03:02:01:05",
});
const certificate = new X509Certificate(issued.pem);

test("reads names of every kind, usages and the wish for a staple", () => {
  expect(extensionsOf(certificate.raw)).toEqual({
    names: [
      { type: "DNS", value: "*.a.test" },
      { type: "URI", value: "spiffe://x/y" },
      { type: "IP_ADDRESS", value: "10.0.0.1" },
      { type: "IP_ADDRESS", value: "2001:db8::1" },
      { type: "EMAIL", value: "me@a.test" },
      { type: "OTHER_NAME", oid: "1.3.6.1.4.1.311.20.2.3", value: "me@b.test" },
    ],
    usages: ["digitalSignature", "keyCertSign"],
    mustStaple: true,
  });
  const root = extensionsOf(new X509Certificate(authority.root.pem).raw);
  expect(root).toEqual({ names: [], usages: undefined, mustStaple: false });
});

test("bytes that were changed on the way never make it throw", () => {
  const { raw } = certificate;
  let seed = 1;
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % below;
  };
  for (let round = 0; round < 20_000; round++) {
    const changed = Buffer.from(raw);
    for (let k = random(4); k >= 0; k--) changed[random(changed.length)] = random(256);
    expect(Array.isArray(extensionsOf(changed.subarray(0, random(raw.length + 1))).names)).toBe(
      true,
    );
  }
});

test("a revocation list speaks for those whom its signer has issued, and only while it is new", () => {
  const other = authority.issue("other", "other", "DNS:other.test");
  const pem = readFileSync(authority.revocationList(issued), "utf8");
  const lists = revocationLists(pem);
  const root = [new X509Certificate(authority.root.pem)];
  const good = new X509Certificate(other.pem);
  expect(revocationError(certificate, root, lists)).toBe("CERT_REVOKED");
  expect(revocationError(good, root, lists)).toBe("");
  expect(revocationError(good, root, lists, Date.now() + 8 * 86_400_000)).toBe("CRL_HAS_EXPIRED");
  expect(revocationError(good, root, lists, Date.now() - 86_400_000)).toBe("CRL_NOT_YET_VALID");
  expect(revocationError(good, root, [])).toBe("UNABLE_TO_GET_CRL");
  // Of the same name, with a key of its own.
  const impostor = new Authority("extensions");
  const theirs = revocationLists(readFileSync(impostor.revocationList(other), "utf8"));
  impostor.dispose();
  expect(revocationError(good, root, theirs)).toBe("CRL_SIGNATURE_FAILURE");
  expect(() => revocationLists(pem.replace(/M/, "N"))).toThrow(/cannot be read/);
});
