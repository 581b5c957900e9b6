import http, { type RequestListener } from "node:http";
import { runExample } from "../run-example.ts";

const serve =
  (answer: RequestListener) =>
  (port: number): Promise<http.Server> =>
    new Promise((resolve) => {
      const server = http.createServer(answer).listen(port, "127.0.0.1", () => resolve(server));
    });

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: {
    8510: serve((request, response) => {
      response.setHeader("content-type", "text/plain");
      response.end(`hello, ${request.headers["x-user"] ?? "nobody"}\n`);
    }),
    8511: serve((request, response) => {
      const key = request.headers["x-api-key"];
      response.statusCode = key === "ada" ? 200 : 401;
      response.end(key);
    }),
  },
  tell: (port) => `
  curl -i http://localhost:${port(8500)}/
  curl -H 'x-api-key: ada' http://localhost:${port(8500)}/private
  curl -H 'x-api-key: ada' http://localhost:${port(8500)}/page
  admin  http://localhost:${port(8501)}/stats?filter=scripts

Edit the script in ${import.meta.dirname}/envoy.yaml, save, ask again.
`,
});
