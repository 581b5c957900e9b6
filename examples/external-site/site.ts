import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import path from "node:path";
import type { TLSSocket } from "node:tls";

const NAME = "www.envoyproxy.io";

/** Stands for the site where there is no network: a server of that name, whose certificate is made into `folder`. */
export function startSite(port: number, folder: string): Promise<http2.Http2SecureServer> {
  const at = (file: string): string => path.join(folder, file);
  execFileSync(
    "openssl",
    [
      ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", `/CN=${NAME}`],
      ["-keyout", at("site.key"), "-out", at("site.pem"), "-addext", `subjectAltName=DNS:${NAME}`],
    ].flat(),
    { stdio: "pipe" },
  );
  const identity = { key: readFileSync(at("site.key")), cert: readFileSync(at("site.pem")) };
  const server = http2.createSecureServer(
    { ...identity, allowHTTP1: true },
    (request, response) => {
      const { servername } = request.socket as unknown as TLSSocket;
      response.end(`HTTP/${request.httpVersion} ${servername} ${request.headers[":authority"]}\n`);
    },
  );
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}
