import { mkdtemp, readdir, realpath, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import type { TestProjectInlineConfiguration } from "vitest/config";
import { startVitest } from "vitest/node";
import { isPacked, ROOT } from "../own-files.ts";
import { SANDBOX_KINDS } from "../packages/package-unit.ts";
import { discoverDroppedIn, type PackageSource } from "../packages/packages.ts";
import { noFilters, refuse } from "../problem.ts";

export interface FilterTestOptions {
  /** The directory with the packages. */
  readonly dir: string;
  /** Only test files whose path contains one of these; empty: all. */
  readonly names: readonly string[];
  readonly watch: boolean;
  readonly json: boolean;
}

/**
 * Runs the tests beside filters, and for each package those that every package of its kind must pass (`conformance` of the
 * testing kit). Nothing has to be installed: `@tsproxy/sdk`, its testing kit and vitest are those of the proxy.
 */
export async function filterTest(options: FilterTestOptions): Promise<number> {
  const { dir, names, watch, json } = options;
  const sources = discoverDroppedIn(path.resolve(dir));
  if (!json && sources.length === 0) return refuse(noFilters([dir]), json);
  if (names.length > 0 && !(await testFiles(dir, sources)).some((file) => isNamed(file, names)))
    return refuse(
      `no filter or test file in ${dir} has ${names.map((name) => `"${name}"`).join(" or ")} in its path; there: ${sources.map(({ id }) => nameOf(id)).join(", ")}`,
      json,
    );
  const made = await mkdtemp(path.join(await realpath(os.tmpdir()), "tsproxy-test-"));
  try {
    await writeConformance(sources, made);
    const vitest = await startVitest("test", [...names], {
      config: false,
      root: process.cwd(),
      // Two projects, since a directory that held both would be searched as a whole.
      projects: [project("tests", path.resolve(dir)), project("conformance", made)],
      watch,
      ...(json && { reporters: ["json"] }),
    });
    if (watch) await new Promise<void>((resolve) => vitest.onClose(resolve));
    else await vitest.close();
  } finally {
    await rm(made, { recursive: true, force: true });
  }
  return Number(process.exitCode ?? 0);
}

/** The files of tests, among them those of conformance that are yet to be written. */
async function testFiles(dir: string, sources: readonly PackageSource[]): Promise<string[]> {
  const found = await readdir(dir, { recursive: true }).catch(() => []);
  const tests = found.filter((file) => /\.(test|spec)\.[cm]?[jt]sx?$/.test(file));
  return [...tests.map((file) => path.resolve(dir, file)), ...sources.map(({ id }) => id)];
}

/** As vitest takes names: parts of paths, with a line behind them perhaps. */
function isNamed(file: string, names: readonly string[]): boolean {
  return names.some((name) => file.includes(path.normalize(name.replace(/:\d+$/, ""))));
}

function project(name: string, dir: string): TestProjectInlineConfiguration {
  return {
    root: process.cwd(),
    resolve: { alias: aliases() },
    test: {
      name,
      dir,
      // Makes the sandboxes for `places` of the testing kit.
      setupFiles: [
        isPacked ? path.join(ROOT, "dist/core/place.js") : path.join(ROOT, "core/sandbox/place.ts"),
      ],
      // Inlined, so that it uses the same SDK as the tests.
      server: { deps: { inline: [/\/core\/place\.js$/] } },
      // Conformance sends a body cut at every place, each time through an isolate, which takes long on a busy machine.
      testTimeout: 180_000,
      pool: "forks",
      // With `gc`, tests can measure growth.
      execArgv: [...process.execArgv, "--expose-gc"],
    },
  };
}

/** Writes a conformance test for each package. */
async function writeConformance(sources: readonly PackageSource[], made: string): Promise<void> {
  const kinds = JSON.stringify([...SANDBOX_KINDS]);
  for (const { id, entry, trusted } of sources) {
    const name = nameOf(id);
    const isApart = trusted ? "false" : `${kinds}.includes(definition.kind)`;
    const test = conformanceTest(name, entry, isApart);
    await writeFile(path.join(made, `${name}.conformance.test.js`), test);
  }
}

function nameOf(id: string): string {
  return path.basename(id).replace(/\.[^.]*$/, "");
}

/** Code of a conformance test. `isApart`: a JavaScript expression, true if the package may live in a sandbox. */
function conformanceTest(name: string, entry: string, isApart: string): string {
  return `import { conformance, refusal, sampleConfig, sandboxPlace } from "@tsproxy/sdk/testing";
import { afterAll, test } from "vitest";
import definition from ${JSON.stringify(entry)};

const config = refusal(definition) === undefined ? {} : sampleConfig(definition.config);
const refused = refusal(definition, config);
const given = JSON.stringify(config);
const title = (more) => ${JSON.stringify(name)} + (given === "{}" ? "" : " with " + given.slice(0, 80)) + ": " + more;
if (refused === undefined) {
  for (const { name, run } of conformance(definition, config)) test(title(name), run);
  if (${isApart}) {
    const place = sandboxPlace(definition, ${JSON.stringify(entry)});
    afterAll(() => place.dispose());
    for (const { name, run } of conformance(definition, config, place)) test(title("in its sandbox: " + name), run);
  }
} else {
  test.skip(title("does what every filter must: " + refused));
  console.warn(title("left out are the checks that every filter has to pass: " + refused + "\\nto run them, give the schema a config that it takes: Type.Object({ … }, { examples: [{ … }] })"));
}
test(title("is a filter"), () => {});
`;
}

function aliases(): { find: RegExp; replacement: string }[] {
  const sdk = isPacked ? path.join(ROOT, "dist", "sdk") : path.join(ROOT, "sdk");
  const file = isPacked ? "index.js" : "index.ts";
  return [
    { find: /^@tsproxy\/sdk\/testing$/, replacement: path.join(sdk, "testing", file) },
    { find: /^@tsproxy\/sdk$/, replacement: path.join(sdk, file) },
    { find: /^vitest$/, replacement: fileURLToPath(import.meta.resolve("vitest")) },
  ];
}
