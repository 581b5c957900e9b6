import { fileURLToPath } from "node:url";
import { type Bundle, bundle } from "./bundle.ts";

/** What core itself puts into isolates. */
export interface Preludes {
  readonly builtin: string;
  readonly sandbox: string;
  readonly sdk: string;
  readonly bundles: readonly Bundle[];
}

export async function bundlePreludes(): Promise<Preludes> {
  const [builtin, sandbox, sdk] = await Promise.all([
    prelude("inside/main.ts", "tsproxy:inside"),
    prelude("inside/sandbox/main.ts", "tsproxy:sandbox"),
    bundle({
      entry: fileURLToPath(import.meta.resolve("@tsproxy/sdk")),
      filename: "@tsproxy/sdk",
      external: [],
      keepInputs: false,
    }),
  ]);
  return {
    builtin: builtin.code,
    sandbox: sandbox.code,
    sdk: sdk.code,
    bundles: [builtin, sandbox, sdk],
  };
}

function prelude(file: string, filename: string): Promise<Bundle> {
  return bundle({
    entry: fileURLToPath(new URL(file, import.meta.url)),
    filename,
    keepInputs: false,
  });
}
