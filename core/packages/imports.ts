import { builtinModules } from "node:module";
import { fileURLToPath } from "node:url";
import type { Plugin } from "esbuild";
import { isPacked } from "../own-files.ts";

/** What filters can use instead of Node's modules, for error messages. */
const INSTEAD: Readonly<Record<string, string>> = {
  buffer: "Uint8Array and the helpers of @tsproxy/sdk",
  crypto: "the global crypto, as in browsers",
  dns: 'cx.operation("dns.resolve", …)',
  events: "plain callbacks",
  fs: "DataSource() in the config's schema to read a file, cx.file(path) to append lines to one",
  http: 'cx.fetch("cluster:/path")',
  https: 'cx.fetch("cluster:/path")',
  net: "cx.connect(address, handler, options)",
  perf_hooks: "cx.now()",
  process: "the config, and cx.node",
  timers: "setTimeout, or cx.timer(onFired)",
  url: "the global URL",
};
const NODE_MODULE = new RegExp(
  `^(node:|(${builtinModules.filter((name) => !name.includes("/")).join("|")})(/|$))`,
);

/** The SDK's own names but `@tsproxy/sdk`, and those of packages: only for these esbuild has to ask this process. */
const NOT_THE_SDK = /^@tsproxy\/([^s]|s[^d]|sd[^k]|sdk.)/;
const LUA = "@tsproxy/sdk/lua";

/**
 * Lets a filter import its own files, npm packages that run without Node, and the SDK (an external of esbuild's options, or bundled
 * into the preludes); refuses Node's modules. `bundlesSdk`: for a prelude.
 */
export function imports(bundlesSdk: boolean): Plugin {
  return {
    name: "imports",
    setup(esbuild) {
      esbuild.onResolve({ filter: NOT_THE_SDK }, ({ path: name, kind }) => {
        if (kind === "entry-point" || bundlesSdk) return undefined;
        // Bundled into each package that imports it. The npm package has none.
        if (name === LUA && !isPacked) return { path: fileURLToPath(import.meta.resolve(LUA)) };
        const why =
          name === "@tsproxy/sdk/testing"
            ? "the testing kit is for *.test.ts files"
            : "filters import @tsproxy/sdk alone; others are reached by name, through cx";
        return { errors: [{ text: `cannot import "${name}": ${why}` }] };
      });
      esbuild.onResolve({ filter: NODE_MODULE }, async ({ path: name, ...from }) => {
        if (from.pluginData === "tried") return undefined;
        // `buffer` or `events` may also be an npm package of that name that needs no Node.
        if (!name.startsWith("node:")) {
          const { resolveDir, kind, importer } = from;
          const found = await esbuild.resolve(name, {
            resolveDir,
            kind,
            importer,
            pluginData: "tried",
          });
          if (found.errors.length === 0 && !found.external) return found;
        }
        const instead = INSTEAD[name.replace(/^node:/, "").split("/")[0]!];
        const hint = instead === undefined ? "" : `; use ${instead}`;
        return { errors: [{ text: `cannot import "${name}": filters run without Node${hint}` }] };
      });
    },
  };
}
