import type { Definition } from "@tsproxy/sdk";
import { installGlobals } from "./globals.ts";
import { installBounds } from "./sandbox/bounds.ts";

// Runs in the isolate that reads what packages define. Modules may use the globals while they load; timers never fire here.
installGlobals({
  now: () => 0,
  timer: () => ({ arm: () => {}, cancel: () => {}, armed: false }),
  onError: () => {},
});

/** Called before the code of a dropped-in package is loaded: this isolate is on the thread that must not end. */
export function bound(): void {
  installBounds();
}

const USUAL = "write: export default defineHttpFilter({ … })";

/** Why a module defines nothing. `path`: the names that lead to what is wrong, from the definition's own on. */
class Misfit extends Error {
  readonly path: readonly string[];

  constructor(message: string, ...path: readonly string[]) {
    super(message);
    this.path = path;
  }
}

/** What a loaded module defines, as JSON of `Description[]`, or of a Misfit as module-reader.ts has it. */
export function read(loaded: { readonly default?: unknown }): string {
  try {
    const exported = loaded.default;
    if (exported === undefined) throw new Misfit(`no default export; ${USUAL}`);
    const list: unknown[] = Array.isArray(exported) ? exported : [exported];
    return JSON.stringify(list.map(describe));
  } catch (error) {
    if (!(error instanceof Misfit)) throw error;
    const { message, path } = error;
    return JSON.stringify({ message, path, lacksDefault: loaded.default === undefined });
  }
}

function describe(exported: unknown): unknown {
  const d = exported as Partial<Definition & { placement: string; section: string }> | null;
  if (typeof d !== "object" || d === null) throw new Misfit(NO_FILTER);
  if (typeof d.setup !== "function" || typeof d.kind !== "string") throw new Misfit(NO_FILTER);
  if (typeof d.name !== "string" || d.name === "")
    throw new Misfit('the filter has no name; write: name: "…"', "name");
  if (typeof d.config !== "object" || d.config === null)
    throw new Misfit(`"${d.name}" has no config schema; write: config: Type.Object({})`, "config");
  checkSchema(d.name, "config", d.config);
  checkSchema(d.name, "routeConfig", d.routeConfig);
  return {
    kind: d.kind,
    name: d.name,
    aliases: d.aliases ?? [],
    types: d.types ?? [],
    terminal: d.terminal === true,
    runs: d.runs ?? "workers",
    section: d.section,
    schema: d.config,
    sandboxed: d.placement === "sandbox",
    sandbox: d.sandbox,
    routeSchema: d.routeConfig,
  };
}

const NO_FILTER = `the default export is no filter; ${USUAL}`;

/** An object of fields, say, that is no schema would let every config pass. */
function checkSchema(name: string, field: string, value: unknown): void {
  if (value === undefined || (Object(value) === value && TYPEBOX in (value as object))) return;
  const fields = Object.keys(Object(value)).map((key) => `${key}: …`);
  const help = `write: ${field}: Type.Object({ ${fields.join(", ")} })`;
  throw new Misfit(`"${name}": ${field} is no schema; ${help}`, field);
}

/** What TypeBox has made has this. */
const TYPEBOX = Symbol.for("TypeBox.Kind");
