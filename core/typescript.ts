import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { isPacked, ROOT } from "./own-files.ts";

/** One thing that tsc has against a file. */
export interface TypeProblem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly code: string;
  readonly message: string;
}

/** Checking a folder of filters takes a second; this is for the one that never ends. */
const TSC_MS = 120_000;

/**
 * The TypeScript compiler: that of the user's project, the one beside the proxy, or `tsc` in PATH. The proxy brings none: it is
 * larger than everything else together, and whoever writes types has one. Undefined: there is none.
 */
export async function findCompiler(): Promise<readonly string[] | undefined> {
  for (const from of [path.join(process.cwd(), "any.js"), import.meta.url]) {
    try {
      const manifest = createRequire(from).resolve("typescript/package.json");
      return [process.execPath, path.join(path.dirname(manifest), "bin/tsc")];
    } catch {
      // Not there.
    }
  }
  const found = await run(["tsc", "--version"]).catch(() => undefined);
  return found === undefined ? undefined : ["tsc"];
}

export const HOW_TO_GET_IT =
  "types are checked by TypeScript, and there is none here; run: npm install --save-dev typescript";

/** Checks these files, and what they import, as filters: with the SDK, and without Node unless `nodeTypes` says where its types are. */
export async function typeProblems(
  compiler: readonly string[],
  files: readonly string[],
  nodeTypes?: string,
): Promise<TypeProblem[]> {
  if (files.length === 0) return [];
  const folder = await mkdtemp(path.join(tmpdir(), "tsproxy-check-"));
  try {
    const config = path.join(folder, "tsconfig.json");
    await writeFile(config, JSON.stringify(configFor(files, nodeTypes)));
    const out = await run([...compiler, "-p", config, "--pretty", "false"]);
    return problemsIn(out, folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** The directory of `@types/node`: of the user's project, or beside the proxy. */
export function findNodeTypes(): string | undefined {
  for (const from of [path.join(process.cwd(), "any.js"), import.meta.url]) {
    try {
      return path.dirname(createRequire(from).resolve("@types/node/package.json"));
    } catch {
      // Not there.
    }
  }
  return undefined;
}

function configFor(files: readonly string[], nodeTypes: string | undefined): unknown {
  const sdk = isPacked ? path.join(ROOT, "dist/sdk") : path.join(ROOT, "sdk");
  const file = isPacked ? "index.d.ts" : "index.ts";
  const vitest = path.dirname(fileURLToPath(import.meta.resolve("vitest")));
  return {
    extends: path.join(ROOT, isPacked ? "dist/tsconfig.json" : "core/tsconfig.filters.json"),
    compilerOptions: {
      noEmit: true,
      typeRoots: nodeTypes === undefined ? [] : [path.dirname(nodeTypes)],
      types: nodeTypes === undefined ? [] : ["node"],
      paths: {
        "@tsproxy/sdk": [path.join(sdk, file)],
        "@tsproxy/sdk/testing": [path.join(sdk, "testing", file)],
        vitest: [path.join(vitest, "index.d.ts")],
      },
    },
    // This takes the place of what the other one names. Node has all of these globals.
    files: [...(nodeTypes === undefined ? [path.join(sdk, "globals.d.ts")] : []), ...files],
  };
}

/** tsc ends with 1 or 2 where it finds something; everything it finds is on stdout. */
function run([program, ...args]: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const options = { timeout: TSC_MS, maxBuffer: 1 << 26 };
    execFile(program!, args, options, (error, stdout, stderr) => {
      const { code } = (error ?? { code: 0 }) as { code?: unknown };
      if (typeof code === "number") resolve(stdout);
      else reject(new Error(stderr.trim() || String(error)));
    });
  });
}

function problemsIn(out: string, folder: string): TypeProblem[] {
  const found: TypeProblem[] = [];
  for (const line of out.split("\n")) {
    const match = /^(.+?)\((\d+),(\d+)\): error (TS\d+): (.*)$/.exec(line);
    if (match !== null) {
      const [, file, row, column, code, message] = match;
      const at = path.resolve(process.cwd(), file!);
      found.push({
        file: at,
        line: Number(row),
        column: Number(column),
        code: code!,
        message: message!,
      });
      continue;
    }
    const general = /^error (TS\d+): (.*)$/.exec(line);
    if (general !== null)
      found.push({ file: folder, line: 0, column: 0, code: general[1]!, message: general[2]! });
    // What is indented explains the line before.
    const last = found.at(-1);
    if (line.startsWith("  ") && last !== undefined)
      found[found.length - 1] = { ...last, message: `${last.message} ${line.trim()}` };
  }
  return found;
}
