// Makes dist/, which `npm pack` packs: core, SDK, testing kit and all shipped filters as JavaScript, since Node strips no types
// below node_modules. Core is bundled with its libraries, and filters and preludes are built and described in advance, so that a
// start reads only a few files. Run by npm (`prepack`), with the flag that isolates need.
import { execFile } from "node:child_process";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import path from "node:path";
import { promisify } from "node:util";
import type { Metafile, Plugin } from "esbuild";
import { ROOT } from "../own-files.ts";
import { ascii, bundle } from "./bundle.ts";
import { withBundler } from "./bundler.ts";
import { Describer } from "./describe.ts";
import { ModuleReader } from "./module-reader.ts";
import { discoverShipped } from "./packages.ts";
import { PACKED_CODE, PACKED_LIST, PACKED_SCHEMAS, type PackedPackage } from "./packed.ts";
import { buildPreludes, PRELUDES } from "./preludes.ts";
import { reference, unlisted } from "./reference.ts";

const dist = path.join(ROOT, "dist");
const require = createRequire(import.meta.url);
/** Gives bundled CommonJS libraries a `require`. */
const REQUIRE = {
  js: 'import { createRequire as toRequire } from "node:module"; const require = toRequire(import.meta.url);',
};
/** Modules that most starts do not use. To load them would add 10 ms to the start of each thread. */
const RARELY_USED =
  /^node:(child_process|crypto|dgram|dns|fs\/promises|https?|inspector|tls|v8|vm|zlib)$|^(yaml|re2js)$/;
/** Defines `onDemand`: makes a stand-in for an export of such a module, which calls `load` when it is called or read. */
const ON_DEMAND = `const onDemand = (load) => new Proxy(function () {}, {
  get: (_, name) => load()[name],
  apply: (_, self, args) => Reflect.apply(load(), self, args),
  construct: (_, args) => Reflect.construct(load(), args),
});
`;
/**
 * Replaces `import` of these and of Node's other modules by `require`. An import makes Node read all exports of the module, and so
 * load those that are otherwise loaded on demand: in each thread 19 ms for "node:util", 12 for "node:fs".
 */
const builtinsOnDemand: Plugin = {
  name: "builtins on demand",
  setup({ onLoad }) {
    onLoad({ filter: /\/core\/.*\.ts$/ }, async ({ path: file }) => {
      const source = await readFile(file, "utf8");
      const contents = source.replace(
        /^import (?!type )([^;]*?) from "(node:[^"]+|yaml|re2js)";/gm,
        (_, names: string, from: string) =>
          RARELY_USED.test(from)
            ? onDemand(required(names), from)
            : `const ${required(names)} = require("${from}");`,
      );
      return {
        contents: contents.includes("onDemand(") ? ON_DEMAND + contents : contents,
        loader: "ts",
      };
    });
    // Logging libraries only call `assert(claim)`, so the module is loaded at the first call.
    onLoad({ filter: /\/(sonic-boom|thread-stream)\/index\.js$/ }, async ({ path: file }) => {
      const source = await readFile(file, "utf8");
      const contents = source.replace(
        /^const assert = (require\('(?:node:)?assert'\))$/m,
        "const assert = (...claim) => $1(...claim)",
      );
      return { contents };
    });
  },
};

/** The left side for `require`: `{ a, type B, c as d }` -> `{ a, c: d }`; `fs`, `* as fs` and `fs, { type B }` -> `fs`. */
function required(names: string): string {
  return names
    .replace(/\btype [^,}]+,?/g, "")
    .replace(/^\* as |, \{\s*\}$/g, "")
    .replace(/ as /g, ": ");
}
/** Code that declares the imported names, and loads the module when one is first used. `left`: what `required` answers. */
function onDemand(left: string, from: string): string {
  const loaded = `require("${from}")`;
  if (!left.startsWith("{")) return `const ${left} = onDemand(() => ${loaded});`;
  const names = left
    .slice(1, -1)
    .split(",")
    .map((part) => part.trim().split(/: */));
  return names
    .filter(([name]) => name !== "")
    .map(([name, own = name]) => `const ${own} = onDemand(() => ${loaded}.${name});`)
    .join(" ");
}
/** Not bundled, but installed beside the package: a program, a test runner, and a library that the SDK's types name. */
const EXTERNAL = ["esbuild", "vitest", "vitest/*", "@sinclair/typebox"];

await rm(dist, { recursive: true, force: true });
await Promise.all([core(), places(), preludes(), sdk(), declarations(), addons(), launcher()]);
await filters();
process.exit(0);

async function core(): Promise<void> {
  // In separate builds: code that programs of one build share becomes a module of its own, and each module adds 1 ms to a start.
  const metafiles = await Promise.all([
    modules(["cli", "proxy-start", "command/bench-peer"], {}),
    modules(["boot"], {}),
    modules(["trial"], {}),
    // Threads check no config, so they need no schemas of the SDK, whose library takes 10 ms of each start.
    modules(["worker"], { "@sinclair/typebox": path.join(ROOT, "core/inside/no-schemas.ts") }),
  ]);
  await cp(path.join(ROOT, "core/config/descriptor.json"), path.join(dist, "core/descriptor.json"));
  await writeFile(path.join(dist, "LICENSES.txt"), await licences(metafiles));
}

async function modules(
  names: readonly string[],
  alias: Readonly<Record<string, string>>,
): Promise<Metafile> {
  const { metafile, outputFiles } = await withBundler(({ build }) =>
    build({
      entryPoints: names.map((name) => path.join(ROOT, "core", `${name}.ts`)),
      alias: { ...alias },
      outdir: path.join(dist, "core"),
      bundle: true,
      splitting: true,
      format: "esm",
      platform: "node",
      // The supervisor runs in whatever version of Node is installed.
      target: "node20",
      chunkNames: "part-[hash]",
      // Less to read, and to keep for functions that are compiled late. Names stay, for stack traces.
      minifyWhitespace: true,
      minifySyntax: true,
      // TypeBox is bundled as well, where core itself uses it.
      external: EXTERNAL.filter((name) => name !== "@sinclair/typebox"),
      banner: REQUIRE,
      plugins: [builtinsOnDemand],
      logLevel: "warning",
      metafile: true,
      write: false,
    }),
  );
  await Promise.all(
    outputFiles.map(async (file) => {
      await mkdir(path.dirname(file.path), { recursive: true });
      await writeFile(file.path, ascii(file.text));
    }),
  );
  return metafile;
}

/** Sandboxes for tests of filters. The SDK is not bundled: they use the one that the tests import. */
async function places(): Promise<void> {
  await withBundler(({ build }) =>
    build({
      entryPoints: [path.join(ROOT, "core/sandbox/place.ts")],
      outfile: path.join(dist, "core/place.js"),
      bundle: true,
      format: "esm",
      platform: "node",
      target: "es2024",
      external: ["@tsproxy/sdk", "@tsproxy/sdk/testing", ...EXTERNAL],
      banner: REQUIRE,
      logLevel: "warning",
    }),
  );
}

async function preludes(): Promise<void> {
  const bundles = await buildPreludes({ isCompact: true });
  for (const [k, file] of Object.values(PRELUDES).entries())
    await write(path.join("core", file), bundles[k]!.code, bundles[k]!.sources.json);
}

async function filters(): Promise<void> {
  const code = (name: keyof typeof PRELUDES) =>
    readFile(path.join(dist, "core", PRELUDES[name]), "utf8");
  const preludes = { sdk: await code("@tsproxy/sdk"), reader: await code("tsproxy:reader") };
  const describer = new Describer(preludes, new ModuleReader(preludes));
  const list: Record<string, PackedPackage> = {};
  let all = "";
  for (const { id, entry, folder, origin } of discoverShipped()) {
    const made = await bundle({ entry, filename: id, isCompact: true });
    const { schemas, ...told } = await describer.describe(entry, made, origin);
    list[id] = { hash: made.hash, at: all.length, size: made.code.length, ...told };
    all += made.code;
    await write(path.join("filters", id, PACKED_SCHEMAS), JSON.stringify(schemas));
    await write(path.join("filters", id, "filter.js"), made.code, made.sources.json);
    for (const file of ["README.md", "package.json"])
      await cp(path.join(folder, file), path.join(dist, "filters", id, file));
  }
  describer.dispose();
  await write(path.join("filters", PACKED_LIST), JSON.stringify(list));
  await write(path.join("filters", PACKED_CODE), all);
}

/** The SDK and its testing kit, for tests of filters. Isolates use the prelude's copy of the SDK. */
async function sdk(): Promise<void> {
  await withBundler(({ build }) =>
    build({
      entryPoints: ["index.ts", "lua/index.ts", "testing/index.ts"].map((file) =>
        path.join(ROOT, "sdk", file),
      ),
      outdir: path.join(dist, "sdk"),
      bundle: true,
      splitting: true,
      format: "esm",
      platform: "neutral",
      target: "es2024",
      external: EXTERNAL,
      logLevel: "warning",
    }),
  );
}

async function declarations(): Promise<void> {
  const tsc = path.join(path.dirname(require.resolve("typescript/package.json")), "bin/tsc");
  const options = ["--noEmit", "false", "--declaration", "--emitDeclarationOnly"];
  const out = ["--rootDir", ROOT, "--outDir", dist];
  await promisify(execFile)(process.execPath, [
    tsc,
    ...["-p", path.join(ROOT, "filters"), ...options, ...out],
  ]);
  const globals = await readFile(path.join(ROOT, "sdk/globals.d.ts"), "utf8");
  const text = await reference(path.join(dist, "sdk"), globals);
  const exported = await Promise.all([import("@tsproxy/sdk"), import("@tsproxy/sdk/testing")]);
  const missing = unlisted(text, exported.flatMap(Object.keys));
  if (missing.length > 0)
    throw new Error(`sdk/reference.md has no entry for ${missing.join(", ")}; see reference.ts`);
  await writeFile(path.join(dist, "sdk/reference.md"), text);
}

/** Copies isolated-vm's prebuilt binaries for all systems except Windows. */
async function addons(): Promise<void> {
  const from = path.dirname(require.resolve("isolated-vm/package.json"));
  const to = path.join(dist, "isolated-vm");
  for (const system of await readdir(path.join(from, "prebuilds")))
    if (!system.startsWith("win32"))
      await cp(path.join(from, "prebuilds", system), path.join(to, system), { recursive: true });
  await cp(path.join(from, "LICENSE"), path.join(to, "LICENSE"));
}

async function launcher(): Promise<void> {
  await cp(path.join(ROOT, "core/bin"), path.join(dist, "bin"), { recursive: true });
  const tsconfig = await readFile(path.join(ROOT, "core/tsconfig.filters.json"), "utf8");
  await write(
    "tsconfig.json",
    tsconfig.replace(/"\.\.\/(sdk\/[^"]*?)(?:\.d)?\.ts"/g, '"./$1.d.ts"'),
  );
  // tsc does not emit this file, since it is a declaration file itself.
  await cp(path.join(ROOT, "sdk/globals.d.ts"), path.join(dist, "sdk/globals.d.ts"));
}

async function write(name: string, code: string, map?: string): Promise<void> {
  const file = path.join(dist, name);
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, code);
  if (map !== undefined) await writeFile(`${file}.map`, map);
}

/** The texts of the bundled libraries' licences, which have to come with copies. */
async function licences(metafiles: readonly Metafile[]): Promise<string> {
  const inputs = metafiles
    .flatMap(({ inputs }) => Object.keys(inputs))
    .map((file) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(file)?.[0]);
  const folders = [...new Set(inputs.filter((folder) => folder !== undefined))].sort();
  const texts = folders.map(async (folder) => {
    const names = await readdir(folder);
    const file = names.find((name) => /^licen[cs]e/i.test(name));
    const text = file === undefined ? "" : await readFile(path.join(folder, file), "utf8");
    return `${folder.replace(/^.*node_modules\//, "")}\n\n${text}`;
  });
  return (await Promise.all(texts)).join("\n----------------\n\n");
}
