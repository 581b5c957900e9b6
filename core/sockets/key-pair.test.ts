import { execFileSync } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { checkKeyPair } from "./key-pair.ts";

const own = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
const key = own.export({ type: "pkcs8", format: "pem" }) as string;
const folder = mkdtempSync(path.join(tmpdir(), "key-pair-"));
const file = path.join(folder, "own.key");
writeFileSync(file, key);
const made = ["req", "-x509", "-key", file, "-subj", "/CN=a", "-days", "2"];
const chain = execFileSync("openssl", made, { encoding: "utf8" });
rmSync(folder, { recursive: true });

const check = (given: string, password?: string) => () =>
  checkKeyPair({ chain, key: given, ...(password !== undefined && { password }) });

test("a certificate and its key are taken, also where the key has a password", () => {
  const locked = own.export({
    ...{ type: "pkcs8", format: "pem" },
    ...{ cipher: "aes-128-cbc", passphrase: "open" },
  }) as string;
  expect(check(key)).not.toThrow();
  expect(check(locked, "open")).not.toThrow();
  expect(check(locked)).toThrow("private_key is encrypted; add its password");
  expect(check(locked, "shut")).toThrow("password does not open private_key");
});

test("a key of another certificate is refused, of the same kind or not", () => {
  const same = generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey;
  const other = generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey;
  for (const one of [same, other]) {
    const pem = one.export({ type: "pkcs8", format: "pem" }) as string;
    expect(check(pem)).toThrow("private_key is not the key of certificate_chain");
  }
  expect(check("nonsense")).toThrow("private_key holds no key in PEM form");
});
