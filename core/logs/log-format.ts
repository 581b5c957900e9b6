interface Line {
  readonly level: string;
  readonly time: string;
  readonly msg: string;
  readonly filter?: string;
  readonly thread?: string;
  readonly [field: string]: unknown;
}

/** spdlog's names of levels, where pino's differ. */
const LEVELS: Readonly<Record<string, string>> = { warn: "warning", fatal: "critical" };
const KNOWN = new Set(["level", "time", "msg", "filter"]);

/**
 * Compiles a pattern of spdlog's, as Envoy's --log-format takes it (`[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v`), to a function of
 * a JSON log line. `%n` is the package that logs. `%g`, `%s`, `%#` and `%!` name a place in Envoy's sources; here they print `-`.
 * `%_` and `%j` escape the message.
 */
export function lineFormat(pattern: string, isEscaped: boolean): (json: string) => string {
  return (json) => {
    const line = JSON.parse(json) as Line;
    const time = new Date(line.time);
    const text = pattern.replace(/%[-=]?\d*([a-zA-Z%#!@+^$_*])/g, (whole, flag: string) => {
      return FLAGS[flag]?.(line, time) ?? whole;
    });
    return `${isEscaped ? escaped(text) : text}\n`;
  };
}

const two = (n: number): string => String(n).padStart(2, "0");
const weekday = (time: Date, weekday: "short" | "long") =>
  time.toLocaleDateString("en-US", { weekday });
const month = (time: Date, month: "short" | "long") => time.toLocaleDateString("en-US", { month });
const ymd = (t: Date) => `${t.getFullYear()}-${two(t.getMonth() + 1)}-${two(t.getDate())}`;
const hms = (t: Date) => `${two(t.getHours())}:${two(t.getMinutes())}:${two(t.getSeconds())}`;
const hour12 = (t: Date) => two(t.getHours() % 12 || 12);
const half = (t: Date) => (t.getHours() < 12 ? "AM" : "PM");
const level = (line: Line) => LEVELS[line.level] ?? line.level;
const none = () => "-";

const FLAGS: Readonly<Record<string, (line: Line, time: Date) => string>> = {
  v: text,
  _: (line) => escaped(text(line)),
  j: (line) => JSON.stringify(text(line)).slice(1, -1),
  n: (line) => line.filter ?? "main",
  l: level,
  L: (line) => level(line).charAt(0).toUpperCase(),
  t: (line) => line.thread ?? "main",
  P: () => String(process.pid),
  Y: (_, t) => String(t.getFullYear()),
  C: (_, t) => two(t.getFullYear() % 100),
  m: (_, t) => two(t.getMonth() + 1),
  d: (_, t) => two(t.getDate()),
  D: (_, t) => `${two(t.getMonth() + 1)}/${two(t.getDate())}/${two(t.getFullYear() % 100)}`,
  x: (_, t) => `${two(t.getMonth() + 1)}/${two(t.getDate())}/${two(t.getFullYear() % 100)}`,
  F: (_, t) => `${String(t.getMilliseconds()).padStart(3, "0")}000000`,
  a: (_, t) => weekday(t, "short"),
  A: (_, t) => weekday(t, "long"),
  b: (_, t) => month(t, "short"),
  B: (_, t) => month(t, "long"),
  c: (_, t) =>
    `${weekday(t, "short")} ${month(t, "short")} ${t.getDate()} ${hms(t)} ${t.getFullYear()}`,
  H: (_, t) => two(t.getHours()),
  I: (_, t) => hour12(t),
  M: (_, t) => two(t.getMinutes()),
  S: (_, t) => two(t.getSeconds()),
  e: (_, t) => String(t.getMilliseconds()).padStart(3, "0"),
  f: (_, t) => `${String(t.getMilliseconds()).padStart(3, "0")}000`,
  p: (_, t) => half(t),
  r: (_, t) => `${hour12(t)}:${two(t.getMinutes())}:${two(t.getSeconds())} ${half(t)}`,
  R: (_, t) => `${two(t.getHours())}:${two(t.getMinutes())}`,
  T: (_, t) => hms(t),
  X: (_, t) => hms(t),
  z: (_, t) => zone(-t.getTimezoneOffset()),
  E: (_, t) => String(Math.floor(t.getTime() / 1000)),
  g: none,
  s: none,
  "#": none,
  "!": none,
  "@": none,
  "^": () => "",
  $: () => "",
  "%": () => "%",
  "+": (line, t) =>
    `[${ymd(t)} ${hms(t)}] [${line.filter ?? "main"}] [${level(line)}] ${text(line)}`,
};

/** The message and all other fields of the line, as `name=value`. */
function text(line: Line): string {
  const more = Object.entries(line).filter(([name]) => !KNOWN.has(name));
  return [line.msg, ...more.map(([name, value]) => `${name}=${JSON.stringify(value)}`)].join(" ");
}

function escaped(text: string): string {
  return text.replace(
    /[\\\n\r\t]/g,
    (c) => ({ "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t" })[c]!,
  );
}

function zone(minutes: number): string {
  const size = Math.abs(minutes);
  return `${minutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}:${two(size % 60)}`;
}
