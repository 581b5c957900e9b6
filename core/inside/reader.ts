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

/** What a loaded module defines, as JSON of `Description[]`. Throws an error that says what is wrong with the module. */
export function read(loaded: { readonly default?: unknown }): string {
  const exported = loaded.default;
  if (exported === undefined) throw new Error(`no default export; ${USUAL}`);
  const list: unknown[] = Array.isArray(exported) ? exported : [exported];
  return JSON.stringify(list.map(describe));
}

function describe(exported: unknown): unknown {
  const d = exported as Partial<Definition & { placement: string; section: string }> | null;
  if (typeof d !== "object" || d === null) throw new Error(NO_FILTER);
  if (typeof d.setup !== "function" || typeof d.kind !== "string") throw new Error(NO_FILTER);
  if (typeof d.name !== "string" || d.name === "")
    throw new Error('the filter has no name; write: name: "…"');
  if (typeof d.config !== "object" || d.config === null)
    throw new Error(`"${d.name}" has no config schema; write: config: Type.Object({})`);
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
  throw new Error(`"${name}": ${field} is no schema; ${help}`);
}

/** What TypeBox has made has this. */
const TYPEBOX = Symbol.for("TypeBox.Kind");
