import { readFileSync } from "node:fs";
import https from "node:https";
import type net from "node:net";
import path from "node:path";

/** A service that speaks TLS and tells what it knows of who asks. */
export function startService(port: number, certs: string): Promise<net.Server> {
  const read = (file: string): Buffer => readFileSync(path.join(certs, file));
  const server = https.createServer(
    { key: read("site.key"), cert: read("site.pem") },
    (request, response) => {
      const { host, "x-forwarded-proto": proto, "x-forwarded-client-cert": who } = request.headers;
      response.end(`${proto}://${host}${request.url}${who === undefined ? "" : ` by ${who}`}\n`);
    },
  );
  return new Promise((resolve, reject) => {
    server.on("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}
