import { createSign, generateKeyPairSync } from "node:crypto";
import http, { type RequestListener } from "node:http";
import { runExample } from "../run-example.ts";

const serve =
  (answer: RequestListener) =>
  (port: number): Promise<http.Server> =>
    new Promise((resolve) => {
      const server = http.createServer(answer).listen(port, "127.0.0.1", () => resolve(server));
    });

const { privateKey, publicKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });

/** A token for an hour, as an issuer would give it. */
function token(sub: string): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const exp = Math.floor(Date.now() / 1000) + 3600;
  const data = `${part({ alg: "RS256", kid: "one" })}.${part({ iss: "example", sub, exp })}`;
  return `${data}.${createSign("sha256").update(data).sign(privateKey, "base64url")}`;
}

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: {
    8910: serve((request, response) => {
      response.setHeader("content-type", "text/plain");
      // In two writes, with the word cut between them.
      response.write(`hello ${request.headers["x-user"] ?? "nobody"}, here is a c`);
      setTimeout(() => response.end("at\n"), 50);
    }),
    8911: serve((_request, response) => {
      const keys = [{ ...publicKey.export({ format: "jwk" }), kid: "one" }];
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify({ keys }));
    }),
  },
  tell: (port) => `
  curl -i http://localhost:${port(8900)}/
  curl -i http://localhost:${port(8900)}/page
  curl -i -H 'authorization: Bearer ${token("ada")}' http://localhost:${port(8900)}/private
  curl -i http://localhost:${port(8902)}/
  admin  http://localhost:${port(8901)}/stats?filter=sniffer|ratelimit

Edit a filter in ${import.meta.dirname}/filters, save, ask again.
`,
});
