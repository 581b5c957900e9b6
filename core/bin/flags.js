/** Flags of every process that runs the proxy. V8's flags for isolates are set later (core/isolate-flags.ts). */
export const FLAGS = [
  // Young garbage that stays in the cache: 8 % less CPU a request than with V8's own 16 MiB (test/bench/cpu.ts http). 4 MiB costs
  // as much CPU as 2, and 12 MiB more memory after a load. A start that begins with 1 collects more often than it has to (7 % of its CPU).
  "--max-semi-space-size=2",
  "--min-semi-space-size=2",
  // V8 maps a copy of its built-in functions (2 MiB) beside the code of each heap that may grow to 2 GB or more. Ours take 10 MiB.
  "--max-old-space-size=2000",
  "--disable-warning=ExperimentalWarning",
];
