import type { Definition, Kind, SandboxManifest } from "@tsproxy/sdk";
import type { Context } from "./context.ts";
import { HeadGuard } from "./head-guard.ts";
import type { Host } from "./host.ts";
import type { Io } from "./io.ts";
import { type ParkedUse, ParkTable } from "./parked.ts";
import { ParkedPolicy } from "./parked-balancer.ts";
import { parkedHttpFactory } from "./parked-http.ts";
import { ParkedLogger } from "./parked-log.ts";
import { parkedNetworkFactory } from "./parked-network.ts";
import { parkedListenerFactory } from "./parked-peek.ts";
import { Parts } from "./parts.ts";
import { COMMAND } from "./ring.ts";
import { HOOK, type HookMask, partFlags, STREAM_PARTS } from "./sandbox/layout.ts";

const BODIES = HOOK.REQUEST_BODY | HOOK.RESPONSE_BODY | HOOK.DATA | HOOK.WRITE;
const PARTS = STREAM_PARTS.reduce((mask, [, bit]) => mask | bit, 0);

const FACTORIES = {
  http: parkedHttpFactory,
  network: parkedNetworkFactory,
  listener: parkedListenerFactory,
};

/** The hooks among `hooks` that the manifest allows. */
export function seenHooks(hooks: HookMask, { body }: SandboxManifest): HookMask {
  return body === "none" ? hooks & ~BODIES : hooks;
}

/** What core tells of a sandboxed package; `hooks` is a HookMask. */
export interface ParkedDescription {
  readonly kind: "http" | "network" | "listener" | "access_log" | "balancer";
  readonly name: string;
  /** The number of its box's ward, which counts as the box in what it sends. */
  readonly ward: number;
  readonly hooks: number;
  readonly manifest?: SandboxManifest;
}

/**
 * Makes the definitions that stand for packages in sandboxes. The registry treats them like any other package: their setup tells
 * core of the use, and core runs the package's own setup in the sandbox before it accepts the preparation.
 */
export class Sandboxes {
  readonly table: ParkTable;
  readonly #host: Host;
  /** Clusters that a box may send requests to. A box that is absent: any. */
  readonly #clusters = new Map<number, ReadonlySet<string>>();
  readonly #uses = new Map<number, ParkedUse>();
  readonly #loggers = new Set<ParkedLogger>();
  /** Policies of balancer packages, by use. */
  readonly #policies = new Map<number, ParkedPolicy>();
  #nextUse = 1;

  constructor(io: Io, host: Host) {
    this.#host = host;
    this.table = new ParkTable({
      memory: io.memory,
      words: io.control,
      reserve: (size) => io.reserveBlock(size),
      park: (box, token, at, size) => io.command(COMMAND.PARK | (box << 8), token, at, size),
      forget: (box, token) => io.command(COMMAND.FORGET | (box << 8), token, 0, 0),
      again: () => io.touch(),
      malformed: (box, reason) => host.tell("malformed", { box, reason }),
      uncaught: (box, error) => {
        const { message, stack = "" } = error instanceof Error ? error : new Error(String(error));
        host.tell("uncaught", { box, message, stack });
      },
      thrown: (error) => host.fault("", error),
      returned: () => io.beat(),
      get inCrossing() {
        return io.inCrossing;
      },
      get hasRoom() {
        return io.hasRoom;
      },
      get now() {
        return io.now;
      },
    });
  }

  /** Whether filters of that box may send requests to that cluster. */
  mayAsk(box: number, cluster: string): boolean {
    return this.#clusters.get(box)?.has(cluster) !== false;
  }

  /** Setup has told what the filters of that use read of their streams, and whether they are stateless. */
  narrow(use: number, mask: HookMask): void {
    const parked = this.#uses.get(use);
    if (parked === undefined) return;
    parked.hooks &= mask | ~PARTS;
    parked.stateless = (mask & HOOK.STATELESS) !== 0;
  }

  /** New streams of that account go through core, to the ward of their sandbox; or may use the gate again. */
  confine(use: number, part: number, isConfined: boolean): void {
    const confined = this.#uses.get(use)?.confined;
    if (isConfined) confined?.add(partFlags(part));
    else confined?.delete(partFlags(part));
  }

  /** Setup has told what that use's policy is like. `told`: JSON of a ToldPolicy. */
  learnPolicy(use: number, told: string): void {
    this.#policies.get(use)?.learn(told);
  }

  /** Sends waiting entries of all access logs. Answers how many the sandboxes have not accepted yet. */
  flushLogs(): number {
    let waiting = 0;
    for (const logger of this.#loggers) waiting += logger.flush();
    return waiting;
  }

  /** The definition for a package whose filters live in that box. */
  define(packageName: string, box: number, description: ParkedDescription): Definition {
    const { kind, name, ward, manifest = {} } = description;
    const hooks = seenHooks(description.hooks, manifest);
    const guard = manifest.headers && new HeadGuard(manifest.headers);
    if (manifest.clusters !== undefined)
      for (const number of [box, ward]) this.#clusters.set(number, new Set(manifest.clusters));
    return {
      kind: kind as Kind,
      name,
      config: {} as never,
      setup: (config, cx) => {
        const use = this.#nextUse++;
        const claimed = (cx as Context).claimUse(use);
        this.#host.tell("use", { package: packageName, box, use, config, ...claimed });
        const parked = {
          box,
          use,
          hooks,
          named: hooks,
          guard,
          keepsBodies: manifest.body !== undefined,
          failsOpen: manifest.failurePolicy === "open",
          disabledBy: manifest.disabledBy,
          stateless: false,
          confined: new Set<number>(),
          parts: new Parts((part, path) => this.#host.tell("part", { box, use, part, path })),
        };
        this.#uses.set(use, parked);
        const end = (): void => {
          this.#uses.delete(use);
          this.#policies.delete(use);
          this.#host.tell("unuse", { box, use });
        };
        if (kind === "access_log") {
          const dropped = cx.stats.counter(
            `filters.${packageName.replaceAll("/", ".")}.entries_dropped`,
          );
          const logger = new ParkedLogger(parked, this.table, cx, (count) => dropped.add(count));
          this.#loggers.add(logger);
          cx.onDispose(() =>
            logger.end(() => {
              this.#loggers.delete(logger);
              end();
            }),
          );
          return logger;
        }
        cx.onDispose(end);
        if (kind === "balancer") {
          const turns = cx.stats.counter(`filters.${packageName.replaceAll("/", ".")}.in_turn`);
          const policy = new ParkedPolicy(parked, this.table, turns);
          this.#policies.set(use, policy);
          return policy;
        }
        return FACTORIES[kind](parked, this.table);
      },
    };
  }
}
