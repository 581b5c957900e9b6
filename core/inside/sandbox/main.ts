/**
 * Entry of the isolate (sandbox) that one dropped-in package lives in. Core calls these functions: `init`, ahead of need, `place` and
 * `start` once, `prepare` and `release` as uses come and go, `run` for each batch of records; a gate calls `run` too.
 */
import {
  type AccessLogger,
  CellHeap,
  ConfigError,
  type Definition,
  type HttpFilterFactory,
  type LevelPolicy,
  type ListenerFilterFactory,
} from "@tsproxy/sdk";
import { installGlobals } from "../globals.ts";
import { misuse } from "../made.ts";
import { AskState, AskTable } from "./asks.ts";
import { BalancerState, BalancerTable, type ToldPolicy } from "./balancers.ts";
import { installBounds } from "./bounds.ts";
import { type ConnectionState, ConnectionTable } from "./connection.ts";
import { SandboxContext, type SandboxUse } from "./context.ts";
import { handedOver } from "./handover.ts";
import {
  BOX,
  baseOf,
  HOOK,
  KIND,
  partOf,
  RECORD,
  RECORD_FLAG,
  RECORD_WORDS,
  STREAM_PARTS,
  slotOf,
} from "./layout.ts";
import { Logged } from "./log.ts";
import { Peeked } from "./peek.ts";
import { StreamTable } from "./stream.ts";
import { StreamState } from "./stream-state.ts";
import { describeError, Surroundings } from "./surroundings.ts";

export { defineRegexes } from "./regexes.ts";

let around: Surroundings;
let streams: StreamTable;
let connections: ConnectionTable;
let asks: AskTable;
let balancers: BalancerTable;
let definition: Definition;
let expected = "[]";
const uses = new Map<number, SandboxContext>();
/** Streams, connections, askers and balancers by the slot of their token. */
const states: (StreamState | ConnectionState | AskState | BalancerState | undefined)[] = [];
/** The account of each of them. */
const useBySlot: number[] = [];
const partBySlot: number[] = [];

/** `box`: the block (BOX); `stats`: cells of the sandbox's stats; `seed`: random bytes, one char each. */
export function init(box: SharedArrayBuffer, stats: SharedArrayBuffer, seed: string): void {
  // Here and not in image.ts: V8 cannot start an isolate from a snapshot that has bounded built-ins.
  installBounds();
  around = new Surroundings(box, stats, seed);
  const { clock } = around;
  installGlobals({
    now: () => clock.now,
    timer: (onFired) => clock.timer(onFired),
    onError: (error) => around.thrown(0, "a timer or microtask", error),
    crypto: { seed, run: (call, data) => around.crypto.run(call, data) },
    log: (level, message) => around.log(level, message, {}),
  });
  streams = new StreamTable(around, followerAt);
  connections = new ConnectionTable(around);
  asks = new AskTable(around);
  balancers = new BalancerTable(around);
}

/** Tells what is known once there is a package, which begins now. */
export function place(
  worker: number,
  nodeId: string,
  nodeCluster: string,
  nodeAddress: string,
): void {
  around.clock.begin();
  around.worker = worker;
  around.node = { id: nodeId, cluster: nodeCluster, ...(nodeAddress && { address: nodeAddress }) };
}

/** Gives the sandbox, which is the isolate of that number, the memory of the package's shared cells. */
export function shareCells(memory: SharedArrayBuffer, isolate: number): void {
  around.cells = new CellHeap(memory, 0, undefined, { worker: around.worker, isolate });
}

/** `text`: JSON of [key, value] of all runtime values. */
export function setRuntime(text: string): void {
  around.running.beginEntry();
  around.clock.begin();
  around.runtime.replace(JSON.parse(text));
}

/** Kinds of packages that can live in a sandbox. */
const KINDS: readonly string[] = ["http", "listener", "network", "access_log", "balancer"];

/** The uses that `start` sets up, as JSON of SandboxUse[]. */
export function expect(text: string): void {
  expected = text;
}

/** Takes the package, as a module that has been evaluated, and answers as `prepare` does. Throws if it cannot live in a sandbox. */
export function start({ default: exported }: { readonly default?: unknown }): string {
  const refused = adopt(exported as Partial<Definition> | undefined);
  if (refused !== "") throw new Error(refused);
  around.words[BOX.ADOPTED] = 1;
  return prepare(expected);
}

/** Answers "", or why the package with this default export cannot live in a sandbox. */
function adopt(found: Partial<Definition> | undefined): string {
  if (typeof found !== "object" || found === null || typeof found.setup !== "function") {
    return "the default export is not a filter: use export default defineHttpFilter({…})";
  }
  if (found.kind === undefined || !KINDS.includes(found.kind)) {
    return `a ${found.kind} package cannot live in a sandbox; mark it "trusted"`;
  }
  if (found.terminal === true && found.kind === "http")
    return "a terminal http filter cannot live in a sandbox yet";
  definition = found as Definition;
  return "";
}

/** What the factory tells of its filters: the mask of STREAM_PARTS that they read, the only ones sent here, and STATELESS. */
function traitsOf(factory: unknown): number {
  const { reads, stateless } = factory as Pick<HttpFilterFactory, "reads" | "stateless">;
  let mask = stateless === true ? HOOK.STATELESS : 0;
  for (const [part, bit] of STREAM_PARTS) if (reads?.includes(part) !== false) mask |= bit;
  return mask;
}

/**
 * Runs `setup` for each use. `text`: JSON of SandboxUse[]. Answers JSON of { refusals, reads: [use, mask][], policies: [use,
 * ToldPolicy][] }, refusals with the id of their use. If one use refuses, none is taken.
 */
export function prepare(text: string): string {
  const refusals: { use: number; place: string; path: string; message: string; stack: string }[] =
    [];
  const made: { use: SandboxUse; cx: SandboxContext; factory: unknown }[] = [];
  around.running.beginEntry();
  around.clock.begin();
  for (const use of JSON.parse(text) as SandboxUse[]) {
    const cx = new SandboxContext(around, use);
    around.running.enter(use.id, 0);
    try {
      const factory = definition.setup(use.config as never, cx);
      const wrong = misuse(definition.kind, factory) ?? outOfPlace(factory);
      if (wrong !== undefined) throw new ConfigError("", wrong);
      made.push({ use, cx, factory });
    } catch (error) {
      cx.dispose();
      const { message, stack } = describeError(error);
      const known = error instanceof ConfigError;
      refusals.push({
        use: use.id,
        place: use.place,
        path: known ? error.path : "",
        message,
        stack: known ? "" : stack,
      });
    }
  }
  for (const { use, cx, factory } of made) {
    if (refusals.length > 0) {
      cx.dispose();
      continue;
    }
    uses.set(use.id, cx);
    addUse(use.id, factory, cx);
  }
  around.tellStats();
  around.running.endEntry();
  const reads = made.map(({ use, factory }) => [use.id, traitsOf(factory)] as const);
  const policies = definition.kind === "balancer" ? made : [];
  return JSON.stringify({
    refusals,
    reads,
    policies: policies.map(({ use, factory }) => {
      const { localities, hashing = false } = factory as LevelPolicy;
      return [use.id, { localities, hashing } satisfies ToldPolicy];
    }),
  });
}

/** Says why a balancer cannot live in a sandbox: it has only `compose`, which asks other policies. Undefined: it can. */
function outOfPlace(made: unknown): string | undefined {
  if (definition.kind !== "balancer" || "create" in (made as object)) return undefined;
  return `"compose" asks other policies, which do not live in a sandbox; start with --trust ${definition.name}`;
}

function addUse(id: number, factory: unknown, cx: SandboxContext): void {
  switch (definition.kind) {
    case "http": {
      const names = definition.sandbox?.headers?.write;
      const writes = names && new Set(names);
      streams.addUse({ id, factory: factory as never, cx, writes });
      break;
    }
    case "network":
      connections.addUse({ id, factory: factory as never, cx });
      break;
    case "balancer":
      balancers.addUse(id, factory as LevelPolicy);
      break;
    case "access_log":
      asks.addUse(id, () => new Logged(factory as AccessLogger, around));
      break;
    default:
      asks.addUse(id, () => new Peeked(factory as ListenerFilterFactory));
  }
}

/** A use has left the config and its last stream has ended. */
export function release(id: number): void {
  around.running.beginEntry();
  around.clock.begin();
  around.running.enter(id, 0);
  uses.get(id)?.dispose();
  uses.delete(id);
  streams.removeUse(id);
  connections.removeUse(id);
  asks.removeUse(id);
  balancers.removeUse(id);
}

/** JSON of [use, state][]: what each use leaves to the next generation. */
export function handover(): string {
  const left: [number, unknown][] = [];
  around.running.beginEntry();
  around.clock.begin();
  for (const [id, cx] of uses) {
    around.running.enter(id, 0);
    try {
      const state = cx.handover();
      if (state !== undefined) left.push([id, handedOver(state)]);
    } catch (error) {
      around.thrown(0, "onHandover", error);
    }
  }
  return JSON.stringify(left);
}

/** One entry: fires due timers and handles the first `count` records of the table. All earlier answers have been taken. */
export function run(count: number): void {
  const { running, words } = around;
  around.outbox.begin();
  running.beginEntry();
  around.clock.begin();
  if (count === 0 || words[BOX.ALONE] === 0) around.clock.fire();
  if (count > 0) around.serves = true;
  words[BOX.RAN] = 0;
  for (let k = 0, i = BOX.RECORDS >> 2; k < count; k++, i += RECORD_WORDS) {
    if (words[i] === -1) {
      words[BOX.BEGUN] = k + 1;
      end(words[i + 1]!);
      continue;
    }
    let followers = 0;
    while (k + 1 + followers < count && isFollower(i + (1 + followers) * RECORD_WORDS)) followers++;
    words[BOX.BEGUN] = k + 1 + followers;
    record(words[i]! >> 2, words[i + 2]!, words[i + 2]! + words[i + 3]!, i, followers);
    k += followers;
    i += followers * RECORD_WORDS;
  }
  around.tellStats();
  running.endEntry();
  words[BOX.RAN] = 1;
}

/** Whether the record at word `i` of the table has RECORD_FLAG.FOLLOWS. */
function isFollower(i: number): boolean {
  const { words } = around;
  return words[i] !== -1 && ((words[words[i]! >> 2]! >> 8) & RECORD_FLAG.FOLLOWS) !== 0;
}

/** The state of the follower at word `i` of the table, created if it is new. Throws what its factory throws. */
function followerAt(i: number, leader: StreamState): StreamState {
  const { words, bytes } = around;
  const w = words[i]! >> 2;
  const token = words[w + RECORD.TOKEN]!;
  const slot = slotOf(token);
  around.running.enter(words[w + RECORD.USE]!, partOf(words[w]!));
  const known = states[slot];
  if (known instanceof StreamState && known.token === baseOf(token)) {
    streams.updateFollower(known, words, bytes, w, leader);
    return known;
  }
  const state = streams.createFollower(baseOf(token), words, bytes, w, leader);
  keep(slot, state);
  return state;
}

function keep(slot: number, state: (typeof states)[number]): void {
  states[slot] = state;
  useBySlot[slot] = around.running.use;
  partBySlot[slot] = around.running.part;
}

/** Handles the record at word `w` with its range. `place`: its word in the table; the next `followers` records follow it. */
function record(
  w: number,
  range: number,
  rangeEnd: number,
  place: number,
  followers: number,
): void {
  const { words, bytes } = around;
  const token = words[w + RECORD.TOKEN]!;
  const base = baseOf(token);
  const slot = slotOf(token);
  const kind = words[w]! & 0xff;
  const flags = words[w]! >> 8;
  if (kind === KIND.REPLY) {
    around.onReply(words, w, range, rangeEnd);
    return;
  }
  around.running.enter(words[w + RECORD.USE]!, partOf(words[w]!));
  let state = states[slot];
  if (state !== undefined && state.token !== base) state = undefined;
  if ((flags & RECORD_FLAG.CREATE) !== 0 && state === undefined) {
    try {
      if (kind === KIND.ASK) state = asks.create(base, words, w);
      else if (kind === KIND.HOSTS) state = balancers.create(base, words, w);
      else if (kind === KIND.CONNECTION) state = connections.create(base, words, bytes, w);
      else state = streams.create(base, words, w, range);
    } catch (error) {
      streams.fail(token, "create", error);
      return;
    }
    keep(slot, state);
  }
  if (kind === KIND.CHOOSE) {
    const asked = state instanceof BalancerState ? state : undefined;
    balancers.choose(token, asked, words, bytes, w);
    return;
  }
  if (state === undefined) {
    if ((flags & RECORD_FLAG.ANSWER) !== 0)
      streams.fail(token, "create", new Error("its stream is not known here"));
    return;
  }
  if (kind === KIND.CREATE || kind === KIND.CONNECTION) return;
  if (state instanceof StreamState) {
    if (kind === KIND.PART) streams.part(state, token & 1, bytes, range, rangeEnd);
    else if (kind === KIND.FACTS) streams.learn(state, words, bytes, w);
    else streams.run(state, words, bytes, w, range, rangeEnd, place, followers);
  } else if (state instanceof BalancerState) balancers.learn(state, words, bytes, w);
  else if (state instanceof AskState) asks.run(state, words, bytes, w, range, rangeEnd);
  else if (kind === KIND.PART) connections.part(state, token & 1, bytes, range, rangeEnd);
  else connections.run(state, words, bytes, w, range, rangeEnd);
}

function end(token: number): void {
  const state = states[slotOf(token)];
  if (state === undefined || state.token !== baseOf(token)) return;
  states[slotOf(token)] = undefined;
  around.running.enter(useBySlot[slotOf(token)]!, partBySlot[slotOf(token)]!);
  if (state instanceof StreamState) streams.end(state);
  else if (state instanceof AskState) asks.end(state);
  else if (state instanceof BalancerState) balancers.end(state);
  else connections.end(state);
}
