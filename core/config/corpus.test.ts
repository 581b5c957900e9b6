import fs from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { formatDiagnostic, loadConfig } from "./load.ts";
import { TEST_PACKAGES } from "./test-packages.ts";

// Envoy's own files and what Envoy itself said of them. They are not part of this repository: without them beside it the
// tests here are skipped.
const corpus = new URL("../../../shared/corpus/", import.meta.url).pathname;
const manifest = path.join(corpus, "envoy", "MANIFEST.tsv");
const present = fs.existsSync(manifest);
const suite = present ? "Envoy's files" : "Envoy's files (skipped: ../shared/corpus is not there)";

interface Case {
  readonly file: string;
  readonly verdict: string;
  readonly bootstrap: boolean;
}

function cases(): Case[] {
  const rows = fs.readFileSync(manifest, "utf8").trim().split("\n").slice(1);
  return rows
    .map((row) => row.split("\t"))
    .map((row) => ({
      file: path.join(corpus, "envoy", row[0]!, row[2]!),
      bootstrap: row[4] === "bootstrap",
      verdict: row[6]!,
    }))
    .filter((c) => fs.existsSync(c.file) && /\.(ya?ml|json)$/.test(c.file));
}

function errorsOf(file: string, text = fs.readFileSync(file, "utf8")) {
  const loaded = loadConfig({ file, text }, TEST_PACKAGES, { strict: false });
  return loaded.ok ? [] : loaded.errors;
}

/** About what no package here is asked to know: the test's cluster manager takes any address. */
const OTHERS_BUSINESS = /cluster_dupe_bootstrap|runtime_bootstrap_eds/;

describe.skipIf(!present)(suite, () => {
  it("are read to the end, whatever they are", () => {
    for (const { file } of cases())
      for (const { line, column } of errorsOf(file))
        expect([line > 0, column > 0], file).toEqual([true, true]);
  });

  it("that Envoy refuses are refused", () => {
    const refused = cases().filter((c) => c.bootstrap && /^reject(-by-design)?$/.test(c.verdict));
    const files = refused.map((c) => c.file).filter((file) => !OTHERS_BUSINESS.test(file));
    expect(files.length).toBeGreaterThan(5);
    expect(files.filter((file) => errorsOf(file).length === 0)).toEqual([]);
  });

  it("of the front proxy are accepted, as they were written from 2018 to 2020", () => {
    const files = cases()
      .filter((c) => c.bootstrap)
      .map((c) => c.file)
      .filter((file) => /v1\.\d+-dev\/examples\/front-proxy\/.*\.yaml$/.test(file));
    expect(files.filter((file) => file.includes("front-envoy.yaml")).length).toBeGreaterThan(1);
    for (const file of files) expect(errorsOf(file).map(formatDiagnostic)).toEqual([]);
  });
});

interface Observed {
  readonly cases: readonly {
    readonly name: string;
    readonly yaml: string;
    readonly verdict: string;
  }[];
}

/** Envoy refuses these: v2 of 2018, which is rewritten here; and what only a package's `setup` looks at. */
const OURS = [
  "hosts (v2)",
  "lb_policy ORIGINAL_DST_LB (v2)",
  "tls_context (v2)",
  "old name + config: (v2)",
];
const SETUP =
  /address hostname in STATIC|LOGICAL_DNS two|unknown cluster|bad regex|lookahead|backref|duplicate vhost domain|two "\*"|weighted total|header add|remove (:path|host)|google_re2|host_rewrite/;

describe.skipIf(!present)("small configs that a running Envoy was asked about", () => {
  const text = present
    ? fs.readFileSync(path.join(corpus, "observed-1.40", "config-verdicts.json"), "utf8")
    : '{"cases": []}';
  const observed = JSON.parse(text) as Observed;
  for (const { name, yaml, verdict } of observed.cases) {
    if (OURS.includes(name) || SETUP.test(name)) continue;
    it(`${verdict}: ${name}`, () => {
      const errors = errorsOf("a.yaml", yaml).filter(
        (e) => !/not implemented here/.test(e.message),
      );
      expect(
        errors.length === 0 ? "ACCEPT" : "REJECT",
        errors.map(formatDiagnostic).join("\n"),
      ).toBe(verdict);
    });
  }
});
