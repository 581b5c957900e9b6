import { expect, test } from "vitest";
import { TimerWheel } from "./timers.ts";

function wheel() {
  return new TimerWheel(
    (error) => {
      throw error;
    },
    () => {},
  );
}

test("timers fire once, in time and never early, near and many turns away", () => {
  const w = wheel();
  const fired: [number, number][] = [];
  const delays = [0, 1, 15, 16, 17, 100, 8191, 8192, 8193, 20_000, 3_600_000];
  for (const ms of delays) w.timer(() => fired.push([ms, w.now])).arm(ms);
  for (let now = 0; now <= 3_600_100; now += 16) w.advance(now);
  expect(fired.map(([ms]) => ms).sort((a, b) => a - b)).toEqual(delays);
  for (const [ms, at] of fired) {
    expect(at).toBeGreaterThanOrEqual(ms);
    expect(at).toBeLessThanOrEqual(ms + 32);
  }
});

test("a wake is never later than the earliest timer, whatever was armed and cancelled before", () => {
  const w = wheel();
  let seed = 7;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
    return seed % n;
  };
  const timers = Array.from({ length: 50 }, () => w.timer(() => {}));
  let now = 0;
  for (let k = 0; k < 5000; k++) {
    const timer = timers[random(50)]!;
    if (random(3) === 0) timer.cancel();
    else timer.arm(random(20_000));
    const armed = timers.filter((t) => t.armed).map((t) => t.at);
    if (armed.length > 0) expect(now + w.wakeIn()).toBeLessThanOrEqual(Math.min(...armed) + 17);
    else expect(w.wakeIn()).toBe(-1);
    now += random(40);
    w.advance(now);
    for (const t of timers) if (t.armed) expect(t.at).toBeGreaterThan(now - 17);
  }
});

test("a timer that is armed again in its own callback fires again, and one that is cancelled does not", () => {
  const w = wheel();
  let n = 0;
  const again = w.timer(() => {
    n++;
    if (n < 3) again.arm(10);
  });
  again.arm(10);
  const cancelled = w.timer(() => {
    throw new Error("was cancelled");
  });
  cancelled.arm(20);
  cancelled.cancel();
  for (let now = 0; now < 200; now += 5) w.advance(now);
  expect(n).toBe(3);
});
