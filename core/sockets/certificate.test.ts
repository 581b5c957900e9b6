import { X509Certificate } from "node:crypto";
import { afterAll, expect, test } from "vitest";
import { Authority } from "../../test/integration/certificates.ts";
import { describeCertificate } from "./certificate.ts";

const authority = new Authority();
afterAll(() => authority.dispose());

test("writes names with the most specific part first, and escapes what RFC 2253 reserves and what is not ASCII", () => {
  const described = (commonName: string) =>
    describeCertificate(new X509Certificate(authority.issue("one", commonName, "DNS:x").pem));
  expect(described("plain")).toMatchObject({
    subject: "CN=plain,O=Test",
    issuer: "CN=authority,O=Test",
    commonName: "plain",
  });
  expect(described('a "b", c; d')).toMatchObject({
    subject: String.raw`CN=a \"b\"\, c\; d,O=Test`,
    commonName: String.raw`a \"b\"\, c\; d`,
  });
  expect(described("Größe 東")).toMatchObject({
    subject: String.raw`CN=Gr\C3\B6\C3\9Fe \E6\9D\B1,O=Test`,
    commonName: "Größe 東",
  });
  expect(described(String.raw`one \+ two+UID=7`)).toMatchObject({
    subject: String.raw`CN=one \+ two+UID=7,O=Test`,
    commonName: String.raw`one \+ two`,
  });
});
