import path from "node:path";
import { fileURLToPath } from "node:url";
import { REGEX_MODULE } from "../inside/regexes.ts";
import { CORE, isPacked } from "../own-files.ts";
import type { PreludeCode, SharedCode } from "../protocol.ts";
import { Bundle, bundle } from "./bundle.ts";
import { sharedCode } from "./module-code.ts";
import { moduleFunction } from "./module-function.ts";
import { readPrelude } from "./packed.ts";

/** Core's own modules for isolates, and for describing packages. */
export interface Preludes extends PreludeCode {
  /** For the describer: the SDK with its schemas, and the module that reads what packages say of themselves. */
  readonly sdk: SharedCode;
  readonly reader: SharedCode;
  readonly bundles: readonly Bundle[];
}

/** The modules' names in stacks -> the files that pack.ts writes. */
export const PRELUDES = {
  "tsproxy:inside": "inside.js",
  "tsproxy:sandbox": "sandbox.js",
  "@tsproxy/sdk": "sdk.js",
  "tsproxy:reader": "reader.js",
  "tsproxy:sdk": "sdk-inside.js",
  [REGEX_MODULE]: "regex.js",
} as const;

export async function bundlePreludes(): Promise<Preludes> {
  const bundles = isPacked ? readPreludes() : await buildPreludes();
  const codes = bundles.map(({ shared }) => shared) as Codes;
  const [builtin, sandbox, sdk, reader, builtinSdk, regex] = codes;
  return { builtin, builtinSdk, regex, sandbox, sdk, reader, bundles };
}

type Code = SharedCode;
type Codes = [Code, Code, Code, Code, Code, Code];

/** Bundles the modules, in the order of PRELUDES. */
export async function buildPreludes({ isCompact = false } = {}): Promise<Bundle[]> {
  const how = { isCompact, keepInputs: false };
  const all = { ...how, external: [] };
  const sdk = fileURLToPath(import.meta.resolve("@tsproxy/sdk"));
  const alias = { "@sinclair/typebox": own("inside/no-schemas.ts") };
  const image = own("inside/sandbox/image.ts");
  const [builtin, sandbox, ...others] = await Promise.all([
    bundle({ ...how, entry: own("inside/main.ts"), filename: "tsproxy:inside" }),
    bundle({ ...all, entry: image, filename: "tsproxy:sandbox", format: "iife" }),
    bundle({ ...all, entry: sdk, filename: "@tsproxy/sdk" }),
    bundle({ ...how, entry: own("inside/reader.ts"), filename: "tsproxy:reader" }),
    bundle({ ...all, entry: sdk, filename: "tsproxy:sdk", alias }),
    bundle({ ...how, entry: own("inside/regex.ts"), filename: REGEX_MODULE }),
  ]);
  return [builtin, withRegexes(sandbox, others[3]), ...others];
}

/** The script of the sandboxes' image, with the module that compiles regexes as a function that it does not call. */
function withRegexes(image: Bundle, regex: Bundle): Bundle {
  const { expression } = moduleFunction(regex.code)!;
  const more = `(({ sdk, prelude }) => prelude.defineRegexes(() => ${expression}(sdk)))(globalThis["tsproxy:image"]);`;
  return new Bundle({ ...image, shared: sharedCode(`${image.code}${more}`) });
}

function readPreludes(): Bundle[] {
  return Object.entries(PRELUDES).map(([filename, file]) =>
    readPrelude(path.join(CORE, file), filename),
  );
}

function own(file: string): string {
  return path.join(CORE, file);
}
