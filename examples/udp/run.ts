import { runExample } from "../run-example.ts";
import { startService } from "./service.ts";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: { 8758: (port) => startService(port, "a"), 8759: (port) => startService(port, "b") },
  tell: (port) => `
  nc -u localhost ${port(8750)}                  say something
  admin  http://localhost:${port(8751)}/stats?filter=^udp
`,
});
