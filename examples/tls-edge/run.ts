import { runExample } from "../run-example.ts";
import { makeCertificates } from "./certificates.ts";
import { startService } from "./service.ts";

const certs = makeCertificates();
const curl = "curl --cacert examples/tls-edge/certs/ca.pem";
const staff = "--cert examples/tls-edge/certs/ada.pem --key examples/tls-edge/certs/ada.key";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: { 8791: (port) => startService(port, certs) },
  tell: (port) => `
  curl -i http://localhost:${port(8700)}/            redirected to HTTPS
  ${curl} --connect-to ::localhost:${port(8743)} https://www.example.test/
  ${curl} --connect-to ::localhost:${port(8743)} https://shop.example.test/
  ${curl} ${staff} --connect-to ::localhost:${port(8743)} https://staff.example.test/
  admin  http://localhost:${port(8701)}/certs
`,
});
