import { BOX, type HookMask } from "../inside/sandbox/layout.ts";
import type { SandboxUse } from "../inside/sandbox/main.ts";
import type { Refusal } from "../protocol.ts";
import { SandboxIsolate } from "./isolate.ts";
import type { SandboxOptions } from "./options.ts";
import { SandboxStats } from "./stats.ts";

/** A built isolate with the package loaded and its uses set up; or the refusals of its setups. */
export interface Made {
  readonly isolate: SandboxIsolate;
  readonly stats: SandboxStats;
  readonly refusals: Refusal[];
}

/** `runtime`: JSON of all runtime values, or "". Throws what the package throws while it loads. */
export async function makeIsolate(
  options: SandboxOptions,
  uses: readonly SandboxUse[],
  { timeoutMs, runtime, now }: { timeoutMs: number; runtime: string; now: () => number },
): Promise<Made> {
  const { supply, module, watchdog, worker, node, marks } = options;
  const empty = await supply.takeIsolate(options.limits?.quotaMb);
  const memory = supply.takeMemory();
  const stats = new SandboxStats(options.stats, memory.stats, options.package);
  const isolate = await SandboxIsolate.build(empty, module, memory, {
    timeoutMs,
    watchdog,
    worker,
    node,
    runtime,
    marks,
  });
  isolate.times[BOX.WAKE_AT / 2] = Number.POSITIVE_INFINITY;
  try {
    await options.onMade?.(isolate);
    isolate.times[BOX.NOW / 2] = now();
    return { isolate, stats, refusals: await setUp(options, isolate, uses) };
  } catch (error) {
    isolate.dispose();
    throw error;
  }
}

/** Runs `setup` for these uses, on another thread. */
export async function setUp(
  options: SandboxOptions,
  isolate: SandboxIsolate,
  uses: readonly SandboxUse[],
): Promise<Refusal[]> {
  const text = await isolate.call("prepare", JSON.stringify(uses));
  const { refusals, reads, policies } = JSON.parse(text) as {
    readonly refusals: readonly Omit<Refusal, "package">[];
    readonly reads: readonly (readonly [use: number, mask: HookMask])[];
    readonly policies: readonly (readonly [use: number, policy: unknown])[];
  };
  for (const [use, mask] of reads) options.onReads?.(use, mask);
  for (const [use, policy] of policies) options.onPolicy?.(use, JSON.stringify(policy));
  return refusals.map((refusal) => ({ package: options.package, ...refusal }));
}
