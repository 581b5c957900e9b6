/** Lines of `console`, by the level that they have in the proxy's log. */
const LEVELS = {
  debug: "debug",
  trace: "debug",
  log: "info",
  info: "info",
  warn: "warn",
  error: "error",
} as const;
type Method = keyof typeof LEVELS;
export type ConsoleLog = (level: (typeof LEVELS)[Method], message: string) => void;

type Print = (...values: unknown[]) => void;
/** V8 gives each isolate a `console` that only an attached debugger hears. */
type Native = Readonly<Partial<Record<Method, Print>>> | undefined;

/** A `console` whose lines go to the proxy's log, and to the debugger as well. Its other methods stay as V8 has them. */
export function makeConsole(log: ConsoleLog, native: Native): Readonly<Record<Method, Print>> {
  const made = Object.create(native ?? null);
  for (const method of Object.keys(LEVELS) as Method[])
    made[method] = (...values: unknown[]) => {
      native?.[method]?.(...values);
      log(LEVELS[method], values.map(shown).join(" "));
    };
  return made;
}

function shown(value: unknown): string {
  if (typeof value === "string") return value;
  if (value instanceof Error) return value.stack ?? String(value);
  if (typeof value !== "object" || value === null) return String(value);
  try {
    return JSON.stringify(value, plain) ?? String(value);
  } catch {
    return String(value);
  }
}

/** What JSON would leave out or refuse, in a form that it takes. */
function plain(_name: string, value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  return typeof value === "bigint" ? String(value) : value;
}
