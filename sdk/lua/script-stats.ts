import type { Log } from "../extension.ts";
import type { Counter, Gauge, Histogram, Stats } from "../stats.ts";
import { type Args, numberArgument, optionalInteger, textArgument } from "./arguments.ts";
import { libraryError } from "./error.ts";
import { kind } from "./kinds.ts";
import { NONE, Userdata } from "./runtime.ts";
import type { LuaTable } from "./table.ts";

const UNITS = ["ms", "milliseconds", "microseconds", "nanoseconds", "bytes", "unspecified"];
const EXPECTED = UNITS.map((unit) => `'${unit}'`)
  .join(", ")
  .replace(/, (?=[^,]*$)/, ", or ");
/** Most stats that one script may make. */
const NAMES_MAX = 1024;

/** `stats()`: counters, gauges and histograms of the script's own, under the filter's prefix. */
export class StatsData extends Userdata {
  readonly #stats: Stats;
  readonly #tables: Readonly<Record<"counter" | "gauge" | "histogram", LuaTable>>;
  readonly #made = new Map<string, CounterData | GaugeData | HistogramData>();

  constructor(log: Log, stats: Stats) {
    super(statsKind(log));
    this.#stats = stats;
    this.#tables = {
      counter: counterKind(log),
      gauge: gaugeKind(log),
      histogram: histogramKind(log),
    };
  }

  get(form: "counter" | "gauge" | "histogram", name: string, unit: string): Userdata {
    const key = `${form} ${name}`;
    let found = this.#made.get(key);
    if (found !== undefined) return found;
    if (this.#made.size >= NAMES_MAX)
      throw libraryError(`a script may have ${NAMES_MAX} stats at most`);
    const stats = this.#stats;
    const tables = this.#tables;
    if (form === "counter") found = new CounterData(tables.counter, stats.counter(name));
    else if (form === "gauge") found = new GaugeData(tables.gauge, stats.gauge(name));
    else found = new HistogramData(tables.histogram, stats.histogram(name, unit));
    this.#made.set(key, found);
    return found;
  }
}

/** `value()` returns what this script has counted in this worker. */
class CounterData extends Userdata {
  readonly counter: Counter;
  value = 0;
  constructor(metatable: LuaTable, counter: Counter) {
    super(metatable);
    this.counter = counter;
  }
}
class GaugeData extends Userdata {
  readonly gauge: Gauge;
  value = 0;
  constructor(metatable: LuaTable, gauge: Gauge) {
    super(metatable);
    this.gauge = gauge;
  }
  set(value: number): void {
    this.value = value;
    this.gauge.set(value);
  }
}
class HistogramData extends Userdata {
  readonly histogram: Histogram;
  constructor(metatable: LuaTable, histogram: Histogram) {
    super(metatable);
    this.histogram = histogram;
  }
}

function statsKind(log: Log): LuaTable {
  return kind(log, "HttpFilters.Lua.StatsScopeWrapper", StatsData, {
    counter: (self, args) => self.get("counter", textArgument(args, 1, "counter"), ""),
    gauge: (self, args) => self.get("gauge", textArgument(args, 1, "gauge"), ""),
    histogram: (self, args) => {
      const unit = args[1] === undefined ? "" : textArgument(args, 2, "histogram");
      if (unit !== "" && !UNITS.includes(unit))
        throw libraryError(`invalid histogram unit '${unit}', expected ${EXPECTED}`);
      return self.get("histogram", textArgument(args, 1, "histogram"), unit);
    },
  });
}

function counterKind(log: Log): LuaTable {
  const add = (self: CounterData, amount: number): readonly never[] => {
    if (!(amount >= 0)) throw libraryError("counter add amount must be non-negative");
    self.value += Math.trunc(amount);
    self.counter.add(Math.trunc(amount));
    return NONE;
  };
  return kind(log, "HttpFilters.Lua.CounterWrapper", CounterData, {
    inc: (self) => add(self, 1),
    add: (self, args) => add(self, numberArgument(args, 1, "add")),
    value: (self) => self.value,
  });
}

function gaugeKind(log: Log): LuaTable {
  const change = (self: GaugeData, by: number): readonly never[] => {
    self.set(self.value + by);
    return NONE;
  };
  const amount = (args: Args, of: string, what: string): number => {
    const value = Math.trunc(numberArgument(args, 1, of));
    if (!(value >= 0)) throw libraryError(`gauge ${what} must be non-negative`);
    return value;
  };
  return kind(log, "HttpFilters.Lua.GaugeWrapper", GaugeData, {
    inc: (self) => change(self, 1),
    dec: (self) => change(self, -1),
    add: (self, args) => change(self, amount(args, "add", "add amount")),
    sub: (self, args) => change(self, -amount(args, "sub", "sub amount")),
    set: (self, args) => {
      self.set(amount(args, "set", "set value"));
      return NONE;
    },
    // As Envoy's gauges are unsigned 64-bit numbers, a value below 0 wraps around.
    value: (self) => (self.value < 0 ? self.value + 2 ** 64 : self.value),
  });
}

function histogramKind(log: Log): LuaTable {
  return kind(log, "HttpFilters.Lua.HistogramWrapper", HistogramData, {
    recordValue: (self, args) => {
      const value = numberArgument(args, 1, "recordValue");
      if (optionalInteger([value], 1, "recordValue", 0) < 0)
        throw libraryError("histogram value must be non-negative");
      self.histogram.record(value);
      return NONE;
    },
  });
}
