import { runExample } from "../run-example.ts";
import { startService } from "./service.ts";

await runExample({
  folder: import.meta.dirname,
  config: ["client-envoy.yaml", "server-envoy.yaml"],
  services: { 8931: startService },
  tell: (port) => `
  PORT=${port(8903)} node examples/grpc-bridge/client.ts set greeting hello
  PORT=${port(8903)} node examples/grpc-bridge/client.ts get greeting
  PORT=${port(8903)} node examples/grpc-bridge/client.ts get nothing      answered 503
  the client's side  http://localhost:${port(8903)}/
  admin              http://localhost:${port(8904)}/
`,
});
