/**
 * Hours of mixed load: keep-alive, new connections, uploads, WebSockets, upstreams that are killed, a reload every 10 s.
 *
 *   node test/bench/soak.ts [minutes]      (60)
 *
 * Bars: no failure that a killed upstream does not explain, no handle left open, resident memory of all processes, and of the one
 * that serves, grows by at most 1 MiB in 10 minutes once it has found its size (a third of the time, at most 10 minutes).
 */
import { type Sample, soak } from "../integration/soaking.ts";

const MIB = 2 ** 20;
const BAR_MIB = 1;
/** The bundler opens one now and then; what leaks leaves hundreds. */
const STRAY_HANDLES = 3;
const [minutes = 60] = process.argv.slice(2).map(Number);

let told = 0;
const soaked = await soak({
  seconds: minutes * 60,
  reloadEveryMs: 10_000,
  onFailure: (what) => console.log(`${at()} failed: ${what}`),
  onWarning: ({ level, msg }) => console.log(`${at()} ${level}: ${msg}`),
  onSample: (sample) => {
    if (told++ % 6 === 0)
      console.log(
        `${Math.round(sample.seconds)} s: ${(sample.rss / MIB).toFixed(1)} MiB, ${(sample.serving / MIB).toFixed(1)} of them serve, ` +
          `${sample.answered} answered, ${sample.failures} failed`,
      );
  },
});

const warmUp = Math.min(10, minutes / 3) * 60;
const warm = soaked.samples.filter(({ seconds }) => seconds >= warmUp);
const slope = slopeOf(warm, "rss");
const serving = slopeOf(warm, "serving");
const { answered, explained, failures, reloads, kills, handles, active } = soaked;
console.log(
  `${answered} answered, ${explained} explained by a killed upstream or a machine that stood still, ${failures.length} failed; ` +
    `${reloads} reloads, ${kills} kills; handles ${handles.join(" -> ")}; ` +
    `memory ${signed(slope)} MiB in 10 minutes, of the process that serves ${signed(serving)}`,
);
const left = Object.entries(active).filter(([, n]) => n !== 0);
for (const [name, n] of left) console.log(`left over: ${name} = ${n}`);
const isGood =
  failures.length === 0 &&
  left.length === 0 &&
  handles[1] <= handles[0] + STRAY_HANDLES &&
  slope <= BAR_MIB &&
  serving <= BAR_MIB;
process.exit(isGood ? 0 : 1);

function at(): string {
  return new Date().toISOString().slice(11, 19);
}

function signed(mib: number): string {
  return `${mib >= 0 ? "+" : ""}${mib.toFixed(2)}`;
}

/** Least squares, in MiB for 10 minutes. */
function slopeOf(samples: readonly Sample[], what: "rss" | "serving"): number {
  const mean = (values: readonly number[]) =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const at = mean(samples.map(({ seconds }) => seconds));
  const bytes = mean(samples.map((sample) => sample[what]));
  const up = samples.map((sample) => (sample.seconds - at) * (sample[what] - bytes));
  const across = samples.map(({ seconds }) => (seconds - at) ** 2);
  return (mean(up) / mean(across) / MIB) * 600;
}
