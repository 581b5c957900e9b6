import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
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

export interface IssueOptions {
  readonly days?: number;
  readonly rsa?: boolean;
  /** Further extensions, as openssl writes them. */
  readonly more?: string;
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
    { days = 30, rsa = false, more = "" }: IssueOptions = {},
  ): Pair {
    const [key, certificate] = [this.#file(`${file}.key`), this.#file(`${file}.pem`)];
    const [request, extensions] = [this.#file(`${file}.csr`), this.#file(`${file}.ext`)];
    if (rsa) this.#openssl("genrsa", "-out", key, "2048");
    else this.#openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key);
    writeFileSync(extensions, `subjectAltName=${names}\n${more}\n`);
    this.#openssl(
      ...["req", "-new", "-utf8", "-key", key, "-out", request],
      ...["-subj", `/O=Test/CN=${commonName}`],
    );
    this.#openssl(
      ...["x509", "-req", "-in", request, "-CA", this.root.certificate, "-CAkey", this.root.key],
      ...["-CAcreateserial", "-days", String(days), "-extfile", extensions, "-out", certificate],
    );
    return pair(certificate, key);
  }

  /** The file of an OCSP response that calls a certificate good. */
  ocspResponse(pair: Pair): string {
    const [index, response] = [this.#file("index.txt"), this.#file("ocsp.der")];
    const serial = new X509Certificate(pair.pem).serialNumber;
    writeFileSync(index, `V\t360101000000Z\t\t${serial}\tunknown\t/CN=x\n`);
    this.#openssl(
      ...["ocsp", "-index", index, "-CA", this.root.certificate, "-issuer", this.root.certificate],
      ...["-cert", pair.certificate, "-rsigner", this.root.certificate, "-rkey", this.root.key],
      ...["-ndays", "7", "-no_nonce", "-noverify", "-respout", response],
    );
    return response;
  }

  /** The file of a list (PEM) of certificates that are revoked. */
  revocationList(...pairs: readonly Pair[]): string {
    const [index, list, config] = [
      this.#file("crl.txt"),
      this.#file("crl.pem"),
      this.#file("ca.cnf"),
    ];
    const lines = pairs.map(({ pem }) => {
      const { serialNumber } = new X509Certificate(pem);
      return `R\t360101000000Z\t260101000000Z\t${serialNumber}\tunknown\t/CN=x\n`;
    });
    writeFileSync(index, lines.join(""));
    writeFileSync(config, `[ca]\ndefault_ca=x\n[x]\ndatabase=${index}\ndefault_md=sha256\n`);
    this.#openssl(
      ...["ca", "-config", config, "-gencrl", "-crldays", "7", "-out", list],
      ...["-cert", this.root.certificate, "-keyfile", this.root.key],
    );
    return list;
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
