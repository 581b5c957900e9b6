import { runExample } from "../run-example.ts";

await runExample({
  folder: import.meta.dirname,
  config: "envoy.yaml",
  services: {},
  tell: (port) => `
  curl -i http://localhost:${port(8300)}/hello?name=Ada
  curl -i http://localhost:${port(8300)}/
  admin  http://localhost:${port(8301)}/stats?filter=greeting

Edit ${import.meta.dirname}/filters/greeting/filter.ts, save, ask again.
`,
});
