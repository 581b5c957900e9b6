/** What one slice of one variant has measured. */
export interface Measured {
  readonly cpuUs: number;
  readonly requests: number;
}

/** Microseconds per request: the median of all slices, and its standard error. */
export interface Microseconds {
  readonly median: number;
  readonly error: number;
}

/** What was measured of one variant. */
export interface VariantResult {
  readonly name: VariantName;
  readonly cpuUs: Microseconds;
  /** The cost beyond that of no filter, slice by slice; undefined for `none` itself. */
  readonly addedUs: Microseconds | undefined;
  readonly requests: number;
  readonly statuses: Readonly<Record<string, number>>;
  readonly lost: number;
}

/** `idle`: a filter among the shipped ones that has the same hooks, which do nothing. */
export type VariantName = "none" | "idle" | "builtin" | "sandbox";

/** What one request moves across the border of a sandbox. */
export interface Crossing {
  readonly entries: number;
  readonly records: number;
  readonly bytesIn: number;
  readonly bytesOut: number;
  /** CPU inside the isolate. */
  readonly insideUs: number;
}

/** The result of `tsproxy filter bench`, as `--json` prints it. */
export interface BenchResult {
  readonly package: string;
  readonly config: unknown;
  readonly rounds: number;
  readonly sliceMs: number;
  readonly connections: number;
  readonly variants: readonly VariantResult[];
  readonly phases: {
    /** `hooksUs`: the hooks themselves; `chainUs`: calling them. */
    readonly builtin?: { readonly hooksUs: number; readonly chainUs: number };
    readonly sandbox?: {
      readonly insideUs: number;
      readonly crossingUs: number;
      readonly chainUs: number;
    };
  };
  readonly crossing: Crossing | undefined;
  /** Hooks that threw, and isolates that were stopped. */
  readonly faults: number;
  /** Further remarks, as sentences. */
  readonly notes: readonly string[];
}

/**
 * Turns the median deviation of n normal values into the standard error of their median: 1.4826 · √(π / 2), to be divided by √n.
 */
const ERROR_OF_DEVIATION = 1.858;
/** With larger errors the report says that the machine is busy: they may hide the cost of the filter. */
const NOISE_US = 0.5;

/** Median and standard error of the measured values. */
export function microseconds(list: readonly number[]): Microseconds {
  const middle = medianOf(list);
  const deviation = medianOf(list.map((value) => Math.abs(value - middle)));
  return { median: middle, error: (ERROR_OF_DEVIATION * deviation) / Math.sqrt(list.length) };
}

function medianOf(list: readonly number[]): number {
  const sorted = [...list].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Splits the cost into phases, as far as differences between variants and the isolate's own clock tell. */
export function phasesOf(
  variants: readonly Pick<VariantResult, "name" | "addedUs">[],
  crossing: Crossing | undefined,
): BenchResult["phases"] {
  const added = (name: VariantName) => variants.find((v) => v.name === name)?.addedUs?.median;
  const [idle, builtin, sandbox] = [added("idle"), added("builtin"), added("sandbox")];
  // A difference below the noise may come out below 0.
  const chainUs = Math.max(0, idle ?? 0);
  return {
    ...(builtin !== undefined && { builtin: { hooksUs: Math.max(0, builtin - chainUs), chainUs } }),
    ...(sandbox !== undefined &&
      crossing !== undefined && {
        sandbox: {
          insideUs: crossing.insideUs,
          crossingUs: Math.max(0, sandbox - crossing.insideUs - chainUs),
          chainUs,
        },
      }),
  };
}

const TITLES: Readonly<Record<VariantName, string>> = {
  none: "no filter",
  idle: "hooks that do nothing",
  builtin: "among the shipped ones",
  sandbox: "in its own sandbox",
};

/** The result as text for a terminal. */
export function shownBench(result: BenchResult): string {
  const { rounds, sliceMs, connections, variants, phases, crossing, faults } = result;
  const rows = variants.map(({ name, cpuUs, addedUs, statuses, lost }) => [
    TITLES[name],
    cpuUs.median.toFixed(1),
    addedUs === undefined ? "" : `${signed(addedUs.median)} ±${addedUs.error.toFixed(2)}`,
    [
      ...Object.entries(statuses).map(([status, n]) => `${n} × ${status}`),
      ...(lost > 0 ? [`${lost} lost`] : []),
    ].join(", "),
  ]);
  const table = aligned([["", "CPU µs a request", "added", "answers"], ...rows]);
  const lines = [
    `${result.package}: ${rounds} rounds of ${sliceMs} ms each in turns, ${connections} connections, one worker`,
    "",
    ...table,
    "",
  ];
  const us = (value: number) => `${value.toFixed(2)} µs`;
  const { builtin, sandbox } = phases;
  if (builtin !== undefined)
    lines.push(
      `among the shipped ones: hooks ${us(builtin.hooksUs)}, chain ${us(builtin.chainUs)}`,
    );
  if (sandbox !== undefined)
    lines.push(
      `in the sandbox: inside the isolate ${us(sandbox.insideUs)}, crossing ${us(sandbox.crossingUs)}, chain ${us(sandbox.chainUs)}`,
    );
  if (crossing !== undefined)
    lines.push(
      `a request crosses with ${Math.round(crossing.bytesIn)} bytes in and ${Math.round(crossing.bytesOut)} out, in ${crossing.records.toFixed(1)} records; ${(crossing.records / crossing.entries).toFixed(1)} records share a crossing`,
    );
  if (faults > 0) lines.push(`it failed ${faults} times: tsproxy filter dev shows where`);
  const noise = Math.max(...variants.map(({ addedUs }) => addedUs?.error ?? 0));
  if (noise > NOISE_US)
    lines.push(
      `the machine is busy: differences of less than ${(2 * noise).toFixed(1)} µs are noise; --seconds 60 tells smaller ones`,
    );
  lines.push(...result.notes);
  return `${lines.join("\n")}\n`;
}

function signed(value: number): string {
  return `${value < 0 ? "-" : "+"}${Math.abs(value).toFixed(2)}`;
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0]!.map((_, k) => Math.max(...rows.map((row) => row[k]!.length)));
  return rows.map((row) =>
    row
      // Columns of numbers are aligned to the right.
      .map((cell, k) => (k === 0 || k === 3 ? cell.padEnd(widths[k]!) : cell.padStart(widths[k]!)))
      .join("  ")
      .trimEnd(),
  );
}
