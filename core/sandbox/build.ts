import type { SandboxUse } from "../inside/sandbox/context.ts";
import { BOX, type HookMask } from "../inside/sandbox/layout.ts";
import { isTimeout, watchWaiting } from "../process/cpu-limit.ts";
import type { Refusal } from "../protocol.ts";
import { refusalOf } from "../reload/refusal.ts";
import { SandboxLost } from "./aside.ts";
import { LOAD_MS, SandboxIsolate, SERVING_MS } from "./isolate.ts";
import type { SandboxOptions } from "./options.ts";
import { SandboxStats } from "./stats.ts";

/** A built isolate with the package. */
export interface Made {
  readonly isolate: SandboxIsolate;
  readonly stats: SandboxStats;
}

/** Why a use cannot be set up. Use 0: nobody knows which one it is. */
export interface SetupFailure {
  readonly use: number;
  readonly refusal: Refusal;
  /** The setup has not come back. Absent: it refuses. */
  readonly error?: unknown;
}

export interface Surroundings {
  readonly timeoutMs: number;
  /** JSON of all runtime values, or "". */
  readonly runtime: string;
  readonly now: () => number;
}

interface How {
  /** Each use in an entry of its own, so that the promises of one go on before the next one's setup. */
  readonly isApart: boolean;
  /** How many times as long as usual each call may take. */
  readonly patience: number;
}

/** Sets these uses up in a new isolate. Answers it, or which of them have failed. */
export async function build(
  options: SandboxOptions,
  uses: readonly SandboxUse[],
  surroundings: Surroundings,
  how: How = { isApart: false, patience: 1 },
): Promise<Made | readonly SetupFailure[]> {
  const { isApart, patience } = how;
  const waited = watchWaiting();
  let made: Made | undefined;
  try {
    made = await load(options, surroundings, LOAD_MS * patience);
    const { isolate } = made;
    const started = await isolate.start(JSON.stringify(isApart ? [] : uses));
    const failures = [...taken(options, started)];
    for (const use of isApart ? uses : []) failures.push(...(await setUp(options, isolate, [use])));
    if (failures.length > 0) {
      discard(options, made);
      return failures;
    }
    made.isolate.callMs = SERVING_MS;
    return made;
  } catch (error) {
    const { [BOX.USE]: use = 0, [BOX.ADOPTED]: adopted = 0 } = made?.isolate.words ?? [];
    made?.isolate.dispose();
    const more = patience === 1 && isTimeout(error) ? waited() : undefined;
    if (more !== undefined) return build(options, uses, surroundings, { isApart, patience: more });
    const isMixed = adopted === 1 && use === 0 && uses.length > 1 && !isApart;
    // Running out of memory costs a thread, so it is not done twice.
    if (isMixed && !(error instanceof SandboxLost))
      return build(options, uses, surroundings, { isApart: true, patience });
    const place = uses.find(({ id }) => id === use)?.place ?? "";
    return [{ use, refusal: { ...refusalOf(options.package, error), place }, error }];
  }
}

/** Ends an isolate that has never been entered. */
export function discard({ supply }: SandboxOptions, { isolate }: Made): void {
  isolate.dispose();
  supply.giveMemory(isolate.memory);
}

/** Makes an isolate with the package, which has not run yet. */
async function load(
  options: SandboxOptions,
  { timeoutMs, runtime, now }: Surroundings,
  callMs: number,
): Promise<Made> {
  const { supply, module, watchdog, worker, node, marks } = options;
  const empty = await supply.takeIsolate(options.limits?.quotaMb);
  const { memory } = empty;
  new Float64Array(memory.box)[BOX.NOW / 2] = now();
  const stats = new SandboxStats(options.stats, memory.stats, options.package);
  const isolate = await SandboxIsolate.build(empty, module, {
    number: supply.numbers.next(),
    timeoutMs,
    watchdog,
    worker,
    node,
    runtime,
    marks,
    callMs,
  });
  isolate.times[BOX.WAKE_AT / 2] = Number.POSITIVE_INFINITY;
  try {
    await options.onMade?.(isolate);
    return { isolate, stats };
  } catch (error) {
    isolate.dispose();
    throw error;
  }
}

/** Runs `setup` for these uses, on another thread. If one refuses, none is taken. */
export async function setUp(
  options: SandboxOptions,
  isolate: SandboxIsolate,
  uses: readonly SandboxUse[],
): Promise<readonly SetupFailure[]> {
  return taken(options, await isolate.call("prepare", JSON.stringify(uses)));
}

/** Tells what setups have answered. Answers which of them refuse. */
function taken(options: SandboxOptions, text: string): readonly SetupFailure[] {
  const { refusals, reads, policies } = JSON.parse(text) as {
    readonly refusals: readonly (Omit<Refusal, "package"> & { readonly use: number })[];
    readonly reads: readonly (readonly [use: number, mask: HookMask])[];
    readonly policies: readonly (readonly [use: number, policy: unknown])[];
  };
  for (const [use, mask] of reads) options.onReads?.(use, mask);
  for (const [use, policy] of policies) options.onPolicy?.(use, JSON.stringify(policy));
  return refusals.map(({ use, ...refusal }) => ({
    use,
    refusal: { package: options.package, ...refusal },
  }));
}
