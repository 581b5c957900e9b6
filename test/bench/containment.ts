/**
 * What filters that spin, hoard, throw and never answer cost a healthy route of the same worker.
 *
 *   node test/bench/containment.ts [seconds] [healthy clients] [clients a bad route]      (20 8 2)
 */
import { BAD_NAMES, Healthy, openBadFilters, provoke } from "../integration/containing.ts";

const [seconds = 20, clients = 8, provokers = 2] = process.argv.slice(2).map(Number);
const { proxy, upstream } = await openBadFilters();
const port = proxy.port("main");

const alone = new Healthy(port, clients);
await new Promise((resolve) => setTimeout(resolve, 5_000));
await alone.stop();
report("alone", alone, 5);

const besides = new Healthy(port, clients);
const until = performance.now() + seconds * 1000;
const answers = new Map<string, number>();
await Promise.all(
  BAD_NAMES.flatMap((name) =>
    Array.from({ length: provokers }, async () => {
      while (performance.now() < until) {
        const key = `${name} ${await provoke(port, name)}`;
        answers.set(key, (answers.get(key) ?? 0) + 1);
      }
    }),
  ),
);
await besides.stop();
report("beside bad filters", besides, seconds);
for (const [answer, times] of [...answers].sort()) console.log(`  ${answer}: ${times}`);
await proxy.stop();
await upstream.close();
process.exit(besides.failures.length === 0 ? 0 : 1);

function report(what: string, healthy: Healthy, over: number): void {
  const figures = [0.5, 0.99, 0.999, 1].map((q) => `p${q * 100} ${healthy.quantile(q).toFixed(1)}`);
  const rate = Math.round(healthy.tookMs.length / over);
  console.log(
    `${what}: ${rate} requests/s, ms ${figures.join(", ")}, ${healthy.failures.length} failed`,
  );
}
