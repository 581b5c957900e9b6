/**
 * Runs conformance suites from outside this tree against the proxy of this tree.
 *
 *   node test/conformance/run.ts [names] [-v]      (without names: all suites; --help lists them)
 */
import { CLI } from "../integration/proxy.ts";
import { foreignBytes } from "./foreign-bytes.ts";
import { HTTP2_SUITES, http2Suite } from "./http2.ts";
import { NETWORK_SUITES } from "./network.ts";
import { type Outcome, runScript, suite, TINY_RING, withForwarder } from "./outside.ts";

/** Scenarios of the differential harness for what this tree implements. */
const SCENARIOS = [
  "admin-basics",
  "header-manipulation",
  "http1-basics",
  "lb-round-robin",
  "pool-reuse",
  "redirects",
  "routing-match",
  "stats-http",
  "strict-dns",
  "tcp-proxy",
  "timeouts-route",
  "websocket",
  "weighted-clusters",
];

const HELP = `usage: node test/conformance/run.ts [names] [-v]

Runs these suites against the proxy of this tree, or all:`;
const verbose = process.argv.includes("-v") ? ["-v"] : [];

const SUITES: Readonly<Record<string, () => Promise<Outcome>>> = {
  "h1-cases": () => forwarded("conformance/h1-cases.mjs", {}),
  "h1-cases-tiny": () => forwarded("conformance/h1-cases.mjs", TINY_RING),
  "cross-bytes": () => forwarded("conformance/cross-bytes.mjs", {}),
  "cross-bytes-tiny": () => forwarded("conformance/cross-bytes.mjs", TINY_RING),
  "foreign-bytes": () => foreignBytes({}),
  "foreign-bytes-tiny": () => foreignBytes(TINY_RING),
  verdicts: () =>
    script("corpus/verdicts.mjs", [...verbose, "--", process.execPath, CLI, "validate", "--json"]),
  replay: async () => {
    const config = suite("corpus/observed-1.40/vectors.yaml");
    if (config === undefined) return "skipped";
    const command = [process.execPath, CLI, "run", "-c", config, "-l", "error"];
    return script("corpus/replay.mjs", [...verbose, "--", ...command]);
  },
  differential: async () => {
    const scenarios = suite("differential/scenarios");
    if (scenarios === undefined) return "skipped";
    const only = `^(${SCENARIOS.join("|")})$`;
    const subject = `${process.execPath} ${CLI} run -c {config}`;
    const args = ["--subject", subject, "--only", only, ...verbose, scenarios];
    return script("differential/diff.mjs", args);
  },
  ...NETWORK_SUITES,
  ...Object.fromEntries(
    Object.keys(HTTP2_SUITES).map((name) => [
      name,
      () => http2Suite(name as keyof typeof HTTP2_SUITES),
    ]),
  ),
};

const options = process.argv.slice(2).filter((arg) => arg.startsWith("-") && arg !== "-v");
if (options.length > 0) {
  const isHelp = options.every((option) => option === "--help" || option === "-h");
  if (!isHelp) console.error(`no option ${options.join(", ")}`);
  console.log([HELP, ...Object.keys(SUITES)].join("\n  "));
  process.exit(isHelp ? 0 : 2);
}
const names = process.argv.slice(2).filter((arg) => !arg.startsWith("-"));
const unknown = names.filter((name) => !(name in SUITES));
if (unknown.length > 0) {
  console.error(`no suite ${unknown.join(", ")}; there are ${Object.keys(SUITES).join(", ")}`);
  process.exit(2);
}
const outcomes: [string, Outcome][] = [];
for (const name of names.length > 0 ? names : Object.keys(SUITES)) {
  console.log(`\n${name}`);
  outcomes.push([name, await SUITES[name]!()]);
}
console.log(`\n${outcomes.map(([name, outcome]) => `${outcome.padEnd(8)}${name}`).join("\n")}`);
process.exit(outcomes.some(([, outcome]) => outcome === "failed") ? 1 : 0);

async function forwarded(file: string, env: Readonly<Record<string, string>>): Promise<Outcome> {
  const found = suite(file);
  if (found === undefined) return "skipped";
  return withForwarder(env, (proxy, origin) =>
    runScript(found, ["--proxy", proxy, "--origin", origin, ...verbose]),
  );
}

async function script(file: string, args: readonly string[]): Promise<Outcome> {
  const found = suite(file);
  return found === undefined ? "skipped" : runScript(found, args);
}
