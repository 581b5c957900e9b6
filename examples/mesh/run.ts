import { startService } from "../front-proxy/service.ts";
import { runExample } from "../run-example.ts";

await runExample({
  folder: import.meta.dirname,
  config: ["front-envoy.yaml", "service1-envoy.yaml", "service2-envoy.yaml"],
  services: {
    8612: (port) => startService(1, port),
    8622: (port) => startService(2, port),
  },
  tell: (port) => `
  curl http://localhost:${port(8600)}/service/1
  curl http://localhost:${port(8600)}/service/2
  WebSocket echo     ws://localhost:${port(8600)}/service/1/echo
  admin of service1  http://localhost:${port(8611)}/stats?filter=http2
  admin              http://localhost:${port(8601)}/
`,
});
