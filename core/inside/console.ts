/** The methods of `console` whose lines go to the proxy's log, and the log level of each. */
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
/** V8's own `console` of an isolate, whose output reaches an attached debugger only. */
type Native = Readonly<Partial<Record<Method, Print>>> | undefined;

/** Makes a `console` that writes to the proxy's log and to an attached debugger. Methods outside LEVELS stay V8's own. */
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

/** Replacer for JSON.stringify: turns maps, sets and bigints, which JSON lacks, into values that it has. */
function plain(_name: string, value: unknown): unknown {
  if (value instanceof Map) return Object.fromEntries(value);
  if (value instanceof Set) return [...value];
  return typeof value === "bigint" ? String(value) : value;
}
