import { runExample } from "../run-example.ts";
import { startService } from "./service.ts";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: {
    8191: (port) => startService("a", port),
    8192: (port) => startService("b", port),
  },
  tell: (port) => `
  curl -i http://localhost:${port(8100)}/
  curl -d '{"hello": "world"}' http://localhost:${port(8100)}/echo
  WebSocket echo  ws://localhost:${port(8100)}/ws
  admin           http://localhost:${port(8101)}/clusters
`,
});
