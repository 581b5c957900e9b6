import { fileURLToPath } from "node:url";
import { type Bundle, bundle } from "./bundle.ts";
import { isPacked } from "./own-files.ts";
import { readPacked } from "./packed.ts";

/** What core itself puts into isolates. */
export interface Preludes {
  readonly builtin: string;
  readonly sandbox: string;
  readonly sdk: string;
  readonly reader: string;
  readonly bundles: readonly Bundle[];
}

/** Name in stacks -> the file that pack.ts makes of it. */
export const PRELUDES = {
  "tsproxy:inside": "inside.js",
  "tsproxy:sandbox": "sandbox.js",
  "@tsproxy/sdk": "sdk.js",
  "tsproxy:reader": "reader.js",
} as const;

export async function bundlePreludes(): Promise<Preludes> {
  const bundles = isPacked ? readPreludes() : await buildPreludes();
  const texts = bundles.map(({ code }) => code) as [string, string, string, string];
  const [builtin, sandbox, sdk, reader] = texts;
  return { builtin, sandbox, sdk, reader, bundles };
}

/** In the order of PRELUDES. */
export function buildPreludes(): Promise<Bundle[]> {
  return Promise.all([
    prelude("inside/main.ts", "tsproxy:inside"),
    prelude("inside/sandbox/main.ts", "tsproxy:sandbox"),
    bundle({
      entry: fileURLToPath(import.meta.resolve("@tsproxy/sdk")),
      filename: "@tsproxy/sdk",
      external: [],
      keepInputs: false,
    }),
    prelude("inside/reader.ts", "tsproxy:reader"),
  ]);
}

function readPreludes(): Bundle[] {
  return Object.entries(PRELUDES).map(([filename, file]) =>
    readPacked(fileURLToPath(new URL(file, import.meta.url)), filename),
  );
}

function prelude(file: string, filename: string): Promise<Bundle> {
  return bundle({
    entry: fileURLToPath(new URL(file, import.meta.url)),
    filename,
    keepInputs: false,
  });
}
