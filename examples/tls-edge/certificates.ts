import { execFileSync } from "node:child_process";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

const CERTS = path.join(import.meta.dirname, "certs");
const NAMES: Readonly<Record<string, string>> = {
  www: "DNS:www.example.test",
  shop: "DNS:shop.example.test",
  staff: "DNS:staff.example.test",
  site: "DNS:site.example.test",
  ada: "URI:spiffe://example.test/staff/ada",
};

/** An authority and the certificates that the example wants, made by openssl, unless they are there. Answers their folder. */
export function makeCertificates(): string {
  const at = (name: string): string => path.join(CERTS, name);
  if (existsSync(at("ada.pem"))) return CERTS;
  mkdirSync(CERTS, { recursive: true });
  const newKey = (file: string): string[] => ["-newkey", "rsa:2048", "-nodes", "-keyout", at(file)];
  const subject = (name: string): string[] => ["-subj", `/O=Example/CN=${name}`];
  openssl(
    "req",
    "-x509",
    ...newKey("ca.key"),
    "-out",
    at("ca.pem"),
    "-days",
    "30",
    ...subject("ca"),
  );
  for (const [name, alternative] of Object.entries(NAMES)) {
    openssl("req", "-new", ...newKey(`${name}.key`), "-out", at(`${name}.csr`), ...subject(name));
    writeFileSync(at(`${name}.ext`), `subjectAltName=${alternative}\n`);
    const authority = ["-CA", at("ca.pem"), "-CAkey", at("ca.key"), "-CAcreateserial"];
    const request = ["-in", at(`${name}.csr`), "-extfile", at(`${name}.ext`), "-days", "30"];
    openssl("x509", "-req", ...request, ...authority, "-out", at(`${name}.pem`));
  }
  return CERTS;
}

function openssl(...args: string[]): void {
  execFileSync("openssl", args, { stdio: "pipe" });
}

if (process.argv[1] === import.meta.filename) makeCertificates();
