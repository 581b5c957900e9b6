import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { isPacked, ROOT } from "../own-files.ts";

/** An error of tsc. */
export interface TypeProblem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  readonly code: string;
  readonly message: string;
}

/** Time limit of a check, in case it never ends. A folder of filters takes a second. */
const TSC_MS = 120_000;

/**
 * The command of the TypeScript compiler in the user's project, beside the proxy, or in PATH. Undefined: there is none. The proxy
 * does not bring one: it is larger than all else together, and authors of typed filters have it.
 */
export async function findCompiler(): Promise<readonly string[] | undefined> {
  for (const from of [path.join(process.cwd(), "any.js"), import.meta.url]) {
    try {
      const manifest = createRequire(from).resolve("typescript/package.json");
      return [process.execPath, path.join(path.dirname(manifest), "bin/tsc")];
    } catch {
      // Not installed there.
    }
  }
  const found = await run(["tsc", "--version"]).catch(() => undefined);
  return found === undefined ? undefined : ["tsc"];
}

export const HOW_TO_GET_IT =
  "types are checked by TypeScript, and there is none here; run: npm install --save-dev typescript";

/** Checks files, and what they import, as filters: with the SDK's types, and Node's only if `nodeTypes` (a path) is given. */
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

/** The directory of `@types/node` in the user's project, or beside the proxy. Undefined: there is none. */
export function findNodeTypes(): string | undefined {
  for (const from of [path.join(process.cwd(), "any.js"), import.meta.url]) {
    try {
      return path.dirname(createRequire(from).resolve("@types/node/package.json"));
    } catch {
      // Not installed there.
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
    // Replaces `files` of the extended config. With Node's types the SDK's globals are not needed: Node has all of them.
    files: [...(nodeTypes === undefined ? [path.join(sdk, "globals.d.ts")] : []), ...files],
  };
}

/** Runs a command and answers its stdout. An exit code is no failure: tsc exits with 1 or 2 if it finds errors. */
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
    // An indented line explains the error before it.
    const last = found.at(-1);
    if (line.startsWith("  ") && last !== undefined)
      found[found.length - 1] = { ...last, message: `${last.message} ${line.trim()}` };
  }
  return found;
}
