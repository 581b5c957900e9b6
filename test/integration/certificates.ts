import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";

/** Files of a certificate and its key. */
export interface Pair {
  readonly certificate: string;
  readonly key: string;
  readonly pem: string;
  readonly keyPem: string;
}

/** A certificate authority of a test, in a folder of its own; its certificates are made by openssl. */
export class Authority {
  readonly dir = mkdtempSync(path.join(os.tmpdir(), "tsproxy-certs-"));
  readonly root: Pair;

  constructor(name = "authority") {
    const [key, certificate] = [this.#file("ca.key"), this.#file("ca.pem")];
    this.#openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key);
    this.#openssl(
      ...["req", "-x509", "-new", "-key", key, "-out", certificate, "-days", "3650"],
      ...["-subj", `/O=Test/CN=${name}`],
    );
    this.root = pair(certificate, key);
  }

  /** `names` as openssl writes them: `DNS:a.test,URI:spiffe://x`. */
  issue(
    file: string,
    commonName: string,
    names: string,
    { days = 30, rsa = false }: { readonly days?: number; readonly rsa?: boolean } = {},
  ): Pair {
    const [key, certificate] = [this.#file(`${file}.key`), this.#file(`${file}.pem`)];
    const [request, extensions] = [this.#file(`${file}.csr`), this.#file(`${file}.ext`)];
    if (rsa) this.#openssl("genrsa", "-out", key, "2048");
    else this.#openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key);
    writeFileSync(extensions, `subjectAltName=${names}\n`);
    this.#openssl("req", "-new", "-key", key, "-out", request, "-subj", `/O=Test/CN=${commonName}`);
    this.#openssl(
      ...["x509", "-req", "-in", request, "-CA", this.root.certificate, "-CAkey", this.root.key],
      ...["-CAcreateserial", "-days", String(days), "-extfile", extensions, "-out", certificate],
    );
    return pair(certificate, key);
  }

  #file(name: string): string {
    return path.join(this.dir, name);
  }
  #openssl(...args: string[]): void {
    execFileSync("openssl", args, { stdio: "pipe" });
  }
  dispose(): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

function pair(certificate: string, key: string): Pair {
  return {
    certificate,
    key,
    pem: readFileSync(certificate, "utf8"),
    keyPem: readFileSync(key, "utf8"),
  };
}
