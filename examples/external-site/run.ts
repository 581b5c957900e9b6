import { runExample } from "../run-example.ts";
import { startSite } from "./site.ts";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: {},
  standIns: {
    services: { 443: startSite },
    edit: (text, folder) =>
      text
        .replace("address: www.envoyproxy.io", "address: localhost")
        .replace("/etc/ssl/certs/ca-certificates.crt", `${folder}/site.pem`),
  },
  tell: (port) => `
  curl -i http://localhost:${port(8940)}/
  admin  http://localhost:${port(8941)}/clusters
`,
});
