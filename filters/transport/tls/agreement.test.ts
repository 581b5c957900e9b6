import type { ClientHello, TlsInfo } from "@tsproxy/sdk";
import { expect, test } from "vitest";
import { GroupChoice, groupName, signatureAlgorithm } from "./agreement.ts";

const [P256, P384, X25519, HYBRID] = [23, 24, 29, 4588];
const hello = (groups: number[]) => ({ groups }) as unknown as ClientHello;
const tls = (version: string, cipher = "TLS_AES_128_GCM_SHA256", peer?: object) =>
  ({ version, cipher, peer }) as TlsInfo;

test("the group is the first that both have", () => {
  const ours = new GroupChoice("X25519MLKEM768/X25519/P-256", false);
  const now = tls("TLSv1.3");
  expect(ours.of(hello([P256, X25519]), now)).toBe("X25519");
  expect(ours.of(hello([X25519, HYBRID]), now)).toBe("X25519MLKEM768");
  expect(ours.of(hello([P384, P256]), now)).toBe("P-256");
  expect(ours.of(hello([P384]), now)).toBe("");
  const old = tls("TLSv1.2", "ECDHE-ECDSA-AES128-GCM-SHA256");
  expect(ours.of(hello([HYBRID, P256, X25519]), old)).toBe("X25519");
  expect(new GroupChoice("X25519:prime256v1", true).of(hello([P256, X25519]), old)).toBe("P-256");
  expect(ours.of(hello([P256]), tls("TLSv1.2", "AES128-GCM-SHA256"))).toBe("");
  const names = ["prime256v1", "X25519", "x25519", "sect571r1"];
  expect(names.map(groupName)).toEqual(["P-256", "X25519", "X25519", "sect571r1"]);
});

test("the algorithm of a signature is that of the key, and of what we accept", () => {
  const of = (version: string, peer: object | undefined, accepted?: string[]) =>
    signatureAlgorithm(tls(version, "", peer), accepted);
  const ec = { keyType: "ec", curve: "secp384r1" };
  expect(of("TLSv1.3", ec)).toBe("ecdsa_secp384r1_sha384");
  expect(of("TLSv1.2", ec)).toBe("ecdsa_secp256r1_sha256");
  expect(of("TLSv1.3", { keyType: "rsa" })).toBe("rsa_pss_rsae_sha256");
  const pkcs1 = ["ecdsa_secp256r1_sha256", "rsa_pkcs1_sha256"];
  expect(of("TLSv1.2", { keyType: "rsa" }, pkcs1)).toBe("rsa_pkcs1_sha256");
  expect(of("TLSv1.3", { keyType: "ed25519" })).toBe("ed25519");
  expect(of("TLSv1.3", undefined)).toBe("");
});
