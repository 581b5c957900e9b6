import { runExample } from "../run-example.ts";
import { startService } from "./service.ts";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: { 8291: startService },
  tell: (port) => `
  nc localhost ${port(8200)}    a TCP service behind tcp_proxy
  nc localhost ${port(8202)}    echo
  nc localhost ${port(8203)}    direct_response
  admin  http://localhost:${port(8201)}/
`,
});
