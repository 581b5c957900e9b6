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
    8521: serve(({ headers }, response) => {
      const greeting = headers["x-greeting"] ?? "hello";
      response.end(`${greeting}, ${headers["x-user"] ?? "nobody"}\n`);
    }),
    8522: serve((request, response) => {
      const key = request.headers["x-api-key"];
      response.statusCode = key === "ada" ? 200 : 401;
      response.end(key);
    }),
  },
  tell: (port) => `
  curl -i http://localhost:${port(8520)}/
  curl -H 'x-api-key: ada' http://localhost:${port(8520)}/private
  nc localhost ${port(8523)}
  admin  http://localhost:${port(8524)}/stats?filter=lua

Edit the scripts in ${import.meta.dirname}/envoy.yaml, save, ask again.
`,
});
