import { runExample } from "../run-example.ts";
import { startService } from "./service.ts";

await runExample({
  folder: import.meta.dirname,
  config: process.argv.includes("--v3") ? "front-envoy.yaml" : "front-envoy.v2.yaml",
  services: {
    8181: (port) => startService(1, port),
    8182: (port) => startService(2, port),
  },
  tell: (port) => `
  curl http://localhost:${port(8000)}/service/1
  curl http://localhost:${port(8000)}/service/2
  WebSocket echo  ws://localhost:${port(8000)}/service/1/echo
  admin           http://localhost:${port(8001)}/
`,
});
