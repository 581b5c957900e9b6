/** `os.date` and `os.time` (C's strftime and mktime in the C locale). */
import { libraryError } from "./error.ts";
import { toNumber } from "./runtime.ts";
import { LuaTable } from "./table.ts";

const DAYS = "Sunday Monday Tuesday Wednesday Thursday Friday Saturday".split(" ");
const MONTHS =
  "January February March April May June July August September October November December".split(
    " ",
  );
const DAY_MS = 86_400_000;

interface Parts {
  readonly year: number;
  /** From 0. */
  readonly month: number;
  readonly day: number;
  readonly hour: number;
  readonly minute: number;
  readonly second: number;
  /** From 0, which is Sunday. */
  readonly weekday: number;
  /** From 0. */
  readonly yearday: number;
  readonly offsetMinutes: number;
}

function partsOf(time: number, isUtc: boolean): Parts {
  const date = new Date(time);
  if (Number.isNaN(date.getTime()))
    throw libraryError("time result cannot be represented in this installation");
  const offsetMinutes = isUtc ? 0 : -date.getTimezoneOffset();
  // Moved by the offset, so that the UTC getters return the fields of local time.
  const local = new Date(time + offsetMinutes * 60_000);
  const year = local.getUTCFullYear();
  return {
    year,
    month: local.getUTCMonth(),
    day: local.getUTCDate(),
    hour: local.getUTCHours(),
    minute: local.getUTCMinutes(),
    second: local.getUTCSeconds(),
    weekday: local.getUTCDay(),
    yearday: Math.floor((local.getTime() - Date.UTC(year, 0, 1)) / DAY_MS),
    offsetMinutes,
  };
}

/** `os.date("*t")`. Times are in milliseconds since 1970. */
export function dateTable(time: number, isUtc: boolean): LuaTable {
  const parts = partsOf(time, isUtc);
  const table = new LuaTable();
  table.set("sec", parts.second);
  table.set("min", parts.minute);
  table.set("hour", parts.hour);
  table.set("day", parts.day);
  table.set("month", parts.month + 1);
  table.set("year", parts.year);
  table.set("wday", parts.weekday + 1);
  table.set("yday", parts.yearday + 1);
  table.set("isdst", false);
  return table;
}

const two = (value: number): string => String(value).padStart(2, "0");

/** `os.date` with a format of C's strftime. */
export function dateText(time: number, form: string, isUtc: boolean): string {
  const p = partsOf(time, isUtc);
  const expand = (text: string): string =>
    text.replace(/%(.?)/gs, (_, letter: string) => field(letter));
  const half = p.hour % 12 === 0 ? 12 : p.hour % 12;
  const field = (letter: string): string => {
    switch (letter) {
      case "a":
        return DAYS[p.weekday]!.slice(0, 3);
      case "A":
        return DAYS[p.weekday]!;
      case "b":
      case "h":
        return MONTHS[p.month]!.slice(0, 3);
      case "B":
        return MONTHS[p.month]!;
      case "c":
        return expand("%a %b %e %H:%M:%S %Y");
      case "C":
        return two(Math.floor(p.year / 100));
      case "d":
        return two(p.day);
      case "D":
      case "x":
        return expand("%m/%d/%y");
      case "e":
        return String(p.day).padStart(2);
      case "F":
        return expand("%Y-%m-%d");
      case "H":
        return two(p.hour);
      case "I":
        return two(half);
      case "j":
        return String(p.yearday + 1).padStart(3, "0");
      case "m":
        return two(p.month + 1);
      case "M":
        return two(p.minute);
      case "n":
        return "\n";
      case "p":
        return p.hour < 12 ? "AM" : "PM";
      case "r":
        return expand("%I:%M:%S %p");
      case "R":
        return expand("%H:%M");
      case "s":
        return String(Math.floor(time / 1000));
      case "S":
        return two(p.second);
      case "t":
        return "\t";
      case "T":
      case "X":
        return expand("%H:%M:%S");
      case "u":
        return String(p.weekday === 0 ? 7 : p.weekday);
      case "U":
        return two(Math.floor((p.yearday + 7 - p.weekday) / 7));
      case "w":
        return String(p.weekday);
      case "W":
        return two(Math.floor((p.yearday + 7 - ((p.weekday + 6) % 7)) / 7));
      case "y":
        return two(p.year % 100);
      case "Y":
        return String(p.year);
      case "z": {
        const size = Math.abs(p.offsetMinutes);
        return `${p.offsetMinutes < 0 ? "-" : "+"}${two(Math.floor(size / 60))}${two(size % 60)}`;
      }
      case "Z":
        return isUtc || p.offsetMinutes === 0 ? "UTC" : "";
      case "%":
        return "%";
      default:
        return `%${letter}`;
    }
  };
  return expand(form);
}

/** `os.time(table)`: the fields are local time, and carry over if out of range. In seconds; undefined: not representable. */
export function timeOf(table: LuaTable): number | undefined {
  const field = (name: string, otherwise?: number): number => {
    const value = toNumber(table.getText(name)) ?? otherwise;
    if (value === undefined) throw libraryError(`field '${name}' missing in date table`);
    return value;
  };
  const day = field("day");
  const month = field("month");
  const time = new Date(
    field("year"),
    month - 1,
    day,
    field("hour", 12),
    field("min", 0),
    field("sec", 0),
  ).getTime();
  return Number.isNaN(time) ? undefined : Math.floor(time / 1000);
}
