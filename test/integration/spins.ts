/** The source of a filter that never comes back from the path /spin: with its package trusted, that ends the isolate of a worker. */
export const SPINS = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "spins",
  config: Type.Object({}),
  setup: () => () => ({ onRequestHeaders(headers) { if (headers.path === "/spin") for (;;) {} } }),
});
`;
