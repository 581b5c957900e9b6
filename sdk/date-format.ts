import { latin1Encode } from "./bytes.ts";
import type { LineWriter } from "./line-writer.ts";

/**
 * Compiles a strftime format with absl's additions, as access logs use it: `%E3S`, `%E*S`, `%3f`, `%f` (nanoseconds), `%s`. As in
 * Envoy, an unknown conversion is printed as it stands.
 */
export function compileDateFormat(
  format: string,
  zone: "UTC" | "local" = "UTC",
): (epochMs: number) => string {
  const parts: (string | Field)[] = [];
  let literal = "";
  for (let k = 0; k < format.length; k++) {
    if (format[k] !== "%") {
      literal += format[k];
      continue;
    }
    const match = CONVERSION.exec(format.slice(k + 1));
    const field = match === null ? undefined : fieldOf(match[1] ?? "", match[2] ?? "");
    if (match === null || field === undefined) {
      literal += "%";
      continue;
    }
    k += match[0].length;
    if (typeof field === "string") {
      literal += field;
      continue;
    }
    if (literal !== "") parts.push(literal);
    literal = "";
    parts.push(field);
  }
  if (literal !== "") parts.push(literal);

  return (epochMs) => {
    const moment = zone === "UTC" ? momentOf(epochMs) : localMoment(epochMs);
    let text = "";
    for (const part of parts) text += typeof part === "string" ? part : part(moment);
    return text;
  };
}

/** `2026-11-20T09:30:52.143Z`, the default of %START_TIME%. All but the milliseconds is built once a second. */
export function isoTime(epochMs: number): string {
  const fraction = millisecond(epochMs);
  return `${lastText}${fraction < 10 ? "00" : fraction < 100 ? "0" : ""}${fraction}Z`;
}

/** Writes the same. */
export function writeIsoTime(epochMs: number, line: LineWriter): void {
  const fraction = millisecond(epochMs);
  line.bytes(lastBytes);
  line.digits(fraction, 3);
  line.byte(0x5a);
}

/** The millisecond of its second, whose text is `lastText` then. */
function millisecond(epochMs: number): number {
  const ms = Math.floor(epochMs);
  const second = Math.floor(ms / 1000);
  if (second !== lastSecond) {
    lastSecond = second;
    lastText = new Date(second * 1000).toISOString().slice(0, -4);
    lastBytes = latin1Encode(lastText);
  }
  return ms - second * 1000;
}
let lastSecond = Number.NaN;
let lastText = "";
let lastBytes = latin1Encode("");

interface Moment {
  readonly date: Date;
  /** Whole seconds since 1970. */
  readonly seconds: number;
  /** Nine digits. */
  readonly nanos: string;
  /** Minutes that the local time is ahead of UTC. */
  readonly offset: number;
}
type Field = (m: Moment) => string;

function momentOf(epochMs: number): Moment {
  const seconds = Math.floor(epochMs / 1000);
  const nanos = Math.round((epochMs - seconds * 1000) * 1e6);
  return {
    date: new Date(seconds * 1000),
    seconds,
    nanos: String(nanos).padStart(9, "0"),
    offset: 0,
  };
}

/** The same in local time: the UTC fields of `date` are those of a local clock. */
function localMoment(epochMs: number): Moment {
  const offset = -new Date(epochMs).getTimezoneOffset();
  const moment = momentOf(epochMs);
  return { ...moment, date: new Date((moment.seconds + offset * 60) * 1000), offset };
}

/** `+hhmm`, or with colons between. */
function zoneOffset({ offset }: Moment, colon: string): string {
  const minutes = Math.abs(offset);
  return `${offset < 0 ? "-" : "+"}${two(Math.floor(minutes / 60))}${colon}${two(minutes % 60)}`;
}

const CONVERSION = /^([1-9]|E[0-9*]?)?([A-Za-z%])/;
const DAYS = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const MONTHS = [
  "January",
  "February",
  "March",
  "April",
  "May",
  "June",
  "July",
  "August",
  "September",
  "October",
  "November",
  "December",
];

const two = (n: number): string => (n < 10 ? `0${n}` : String(n));
const blank = (n: number): string => (n < 10 ? ` ${n}` : String(n));
const hour12 = (d: Date): number => d.getUTCHours() % 12 || 12;

function fieldOf(modifier: string, letter: string): Field | string | undefined {
  if (modifier === "") return letter === "f" ? (m) => m.nanos : FIELDS[letter];
  if (/^[1-9]$/.test(modifier)) {
    const digits = Number(modifier);
    return letter === "f" ? (m) => m.nanos.slice(0, digits) : undefined;
  }
  // absl: %E<n>S and %E*S are seconds with a fraction, %E<n>f the fraction alone, %Ez an offset with a colon.
  const count = modifier.slice(1);
  if (letter === "S" && count !== "") {
    return (m) => {
      const rest = fraction(m, count);
      return two(m.date.getUTCSeconds()) + (rest === "" ? "" : `.${rest}`);
    };
  }
  if (letter === "f" && count !== "") return (m) => fraction(m, count) || "0";
  if (letter === "z" && (count === "" || count === "*"))
    return (m) => zoneOffset(m, ":") + (count === "*" ? ":00" : "");
  if (letter === "T" && count === "") return "T";
  if (letter === "Y" && count === "4")
    return (m) => String(m.date.getUTCFullYear()).padStart(4, "0");
  // POSIX: E asks for another era or calendar, which the C locale does not have.
  if (count === "" && "cCxXyY".includes(letter)) return FIELDS[letter];
  return undefined;
}

function fraction(m: Moment, count: string): string {
  return count === "*" ? m.nanos.replace(/0+$/, "") : m.nanos.slice(0, Number(count));
}

const FIELDS: Readonly<Record<string, Field | string>> = {
  "%": "%",
  n: "\n",
  t: "\t",
  z: (m) => zoneOffset(m, ""),
  Z: (m) => (m.offset === 0 ? "UTC" : zoneOffset(m, "")),
  Y: (m) => String(m.date.getUTCFullYear()),
  C: (m) => two(Math.floor(m.date.getUTCFullYear() / 100)),
  y: (m) => two(m.date.getUTCFullYear() % 100),
  m: (m) => two(m.date.getUTCMonth() + 1),
  d: (m) => two(m.date.getUTCDate()),
  e: (m) => blank(m.date.getUTCDate()),
  H: (m) => two(m.date.getUTCHours()),
  k: (m) => blank(m.date.getUTCHours()),
  I: (m) => two(hour12(m.date)),
  l: (m) => blank(hour12(m.date)),
  M: (m) => two(m.date.getUTCMinutes()),
  S: (m) => two(m.date.getUTCSeconds()),
  p: (m) => (m.date.getUTCHours() < 12 ? "AM" : "PM"),
  P: (m) => (m.date.getUTCHours() < 12 ? "am" : "pm"),
  a: (m) => DAYS[m.date.getUTCDay()]!.slice(0, 3),
  A: (m) => DAYS[m.date.getUTCDay()]!,
  b: (m) => MONTHS[m.date.getUTCMonth()]!.slice(0, 3),
  h: (m) => MONTHS[m.date.getUTCMonth()]!.slice(0, 3),
  B: (m) => MONTHS[m.date.getUTCMonth()]!,
  u: (m) => String(m.date.getUTCDay() || 7),
  w: (m) => String(m.date.getUTCDay()),
  j: (m) => String(dayOfYear(m.date)).padStart(3, "0"),
  U: (m) => two(Math.floor((dayOfYear(m.date) + 6 - m.date.getUTCDay()) / 7)),
  W: (m) => two(Math.floor((dayOfYear(m.date) + 6 - ((m.date.getUTCDay() + 6) % 7)) / 7)),
  V: (m) => two(isoWeek(m.date).week),
  G: (m) => String(isoWeek(m.date).year),
  g: (m) => two(isoWeek(m.date).year % 100),
  s: (m) => String(m.seconds),
  F: (m) => m.date.toISOString().slice(0, 10),
  T: (m) => m.date.toISOString().slice(11, 19),
  X: (m) => m.date.toISOString().slice(11, 19),
  R: (m) => m.date.toISOString().slice(11, 16),
  D: slashed,
  x: slashed,
  r: (m) =>
    `${two(hour12(m.date))}:${m.date.toISOString().slice(14, 19)} ${m.date.getUTCHours() < 12 ? "AM" : "PM"}`,
  c: (m) =>
    `${DAYS[m.date.getUTCDay()]!.slice(0, 3)} ${MONTHS[m.date.getUTCMonth()]!.slice(0, 3)} ` +
    `${blank(m.date.getUTCDate())} ${m.date.toISOString().slice(11, 19)} ${m.date.getUTCFullYear()}`,
};

function slashed(m: Moment): string {
  const d = m.date;
  return `${two(d.getUTCMonth() + 1)}/${two(d.getUTCDate())}/${two(d.getUTCFullYear() % 100)}`;
}

const DAY_MS = 86_400_000;

function dayOfYear(date: Date): number {
  const midnight = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate());
  return (midnight - Date.UTC(date.getUTCFullYear(), 0, 1)) / DAY_MS + 1;
}

/** ISO 8601: a week belongs to the year that its Thursday lies in. */
function isoWeek(date: Date): { readonly year: number; readonly week: number } {
  const midnight = Date.UTC(date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate());
  const thursday = new Date(midnight + (3 - ((date.getUTCDay() + 6) % 7)) * DAY_MS);
  return { year: thursday.getUTCFullYear(), week: Math.floor((dayOfYear(thursday) - 1) / 7) + 1 };
}
