// Hot path: a host is chosen for every request.
import type {
  Balancer,
  BalancerContext,
  Counter,
  Host,
  HostSet,
  LevelPolicy,
  LocalityPolicy,
  MetadataCriterion,
} from "@tsproxy/sdk";
import { ascii } from "./ascii.ts";
import type { Gate } from "./gate.ts";
import {
  type AnswerSource,
  type Door,
  type Doors,
  type Parked,
  type ParkedUse,
  type ParkTable,
  recordSize,
} from "./parked.ts";
import type { ToldHost, ToldHosts, ToldPolicy } from "./sandbox/balancers.ts";
import {
  ANSWER,
  ANSWER_HEAD,
  ANSWER_HEAD_SIZE,
  CHOICE,
  CHOICE_FLAG,
  HOOK,
  KIND,
  RECORD,
  RECORD_BLOCK_MAX,
  RECORD_FLAG,
  VERDICT,
  VERDICT_TYPE,
} from "./sandbox/layout.ts";

const NOTHING_TOLD: ToldPolicy = {};
/** Chars of JSON in one HOSTS record. */
const HOSTS_TEXT = 32 * 1024;
/** Answers that are no host's index: no host; the balancer threw; it does not know its hosts or has not answered. */
const NONE = -1;
const FAULT = -2;
const UNKNOWN = -3;
/** Attempts: a sandbox that does not know the hosts is told them and asked again. */
const TIMES = 2;

/**
 * Stands for a dropped-in balancer package. The caller of `choose` cannot wait, so the sandbox is entered at once, by its gate.
 * Hosts are chosen by round robin while the gate is shut: another use is set up, a debugger is attached, the last entry was slow.
 */
export class ParkedPolicy implements LevelPolicy {
  readonly #parked: ParkedUse;
  readonly #table: ParkTable;
  readonly #turns: Pick<Counter, "inc">;
  #told: ToldPolicy = NOTHING_TOLD;
  #isKnown = false;
  readonly #callers: (() => void)[] = [];

  /** `turns` counts hosts chosen by round robin instead of by the package. */
  constructor(parked: ParkedUse, table: ParkTable, turns: Pick<Counter, "inc">) {
    this.#parked = parked;
    this.#table = table;
    this.#turns = turns;
  }

  get localities(): LocalityPolicy | undefined {
    return this.#told.localities;
  }

  get hashing(): boolean {
    return this.#told.hashing === true;
  }

  onKnown(call: () => void): void {
    if (!this.#isKnown) this.#callers.push(call);
  }

  /** The package has been set up in its sandbox. `told`: untrusted JSON of a ToldPolicy. */
  learn(told: string): void {
    const { localities, hashing } = JSON.parse(told) as Readonly<Record<string, unknown>>;
    const policy: ToldPolicy = {
      localities: isLocalities(localities) ? localities : undefined,
      hashing: hashing === true,
    };
    this.#isKnown = true;
    const callers = this.#callers.splice(0);
    const isPlain = policy.localities === undefined && policy.hashing !== true;
    if (isPlain && this.#told === NOTHING_TOLD) return;
    this.#told = policy;
    for (const call of callers) call();
  }

  create(set: HostSet): Balancer {
    return new ParkedBalancer(this.#parked, this.#table, this.#turns, set);
  }
}

/** The chain's half of one balancer, for one set of hosts. */
class ParkedBalancer implements Balancer, Parked {
  readonly #parked: ParkedUse;
  readonly #table: ParkTable;
  readonly #doors: Doors;
  readonly #turns: Pick<Counter, "inc">;
  readonly #set: HostSet;
  readonly #tellsActive: boolean;
  #token = 0;
  /** The gate whose isolate has been told the hosts. */
  #knownAt: Gate | undefined = undefined;
  /** Core knows its token, so core must be told of the end. */
  #isCores = false;
  #waitsAt: Gate | undefined = undefined;
  #entry = 0;
  #answer = UNKNOWN;
  #turn = 0;

  constructor(parked: ParkedUse, table: ParkTable, turns: Pick<Counter, "inc">, set: HostSet) {
    this.#parked = parked;
    this.#table = table;
    this.#doors = table.doorsOf(parked.box);
    this.#turns = turns;
    this.#set = set;
    this.#tellsActive = (parked.hooks & HOOK.ACTIVE_REQUESTS) !== 0;
  }

  choose(context: BalancerContext, attempt = 0): Host | undefined {
    const { hosts } = this.#set;
    if (hosts.length === 0) return undefined;
    const { gate } = this.#doors;
    if (gate === undefined || gate.isGone) return this.#byPolicy();
    for (let time = 0; time < TIMES; time++) {
      if (this.#knownAt !== gate) this.#tell(gate);
      if (!gate.isOpenNow || this.#knownAt !== gate) return this.#inTurn();
      this.#answer = UNKNOWN;
      if (!this.#ask(gate, context, attempt)) return this.#inTurn();
      gate.enterNow();
      this.#waitsAt = undefined;
      if (this.#answer >= 0) return hosts[this.#answer];
      if (this.#answer === NONE) return undefined;
      if (this.#answer === FAULT) break;
      this.#knownAt = undefined;
    }
    return this.#byPolicy();
  }

  /** Sends a CHOOSE record. False: no room. */
  #ask(gate: Gate, context: BalancerContext, attempt: number): boolean {
    const { hosts } = this.#set;
    const { hash, priority, metadataMatch } = context;
    const active = this.#tellsActive ? hosts.length : 0;
    const text =
      metadataMatch === undefined || metadataMatch.length === 0 ? "" : textOf(metadataMatch);
    const size = recordSize((CHOICE.REST + active) * 4 + text.length, 0);
    if (size > RECORD_BLOCK_MAX) return false;
    const w = gate.begin(size, KIND.CHOOSE, RECORD_FLAG.ANSWER, this.#token, this.#parked.use);
    if (w < 0) return false;
    const { words, memory } = gate;
    const p = w + RECORD.PAYLOAD;
    words[p + CHOICE.ATTEMPT] = attempt;
    words[p + CHOICE.FLAGS] =
      (hash === undefined ? 0 : CHOICE_FLAG.HASH) |
      (priority === "high" ? CHOICE_FLAG.HIGH : 0) |
      (text === "" ? 0 : CHOICE_FLAG.METADATA);
    if (hash !== undefined) {
      words[p + CHOICE.HASH_LOW] = Number(hash & 0xffff_ffffn);
      words[p + CHOICE.HASH_HIGH] = Number((hash >> 32n) & 0xffff_ffffn);
    }
    words[p + CHOICE.ACTIVE] = active;
    words[p + CHOICE.TEXT] = text.length;
    for (let k = 0; k < active; k++) words[p + CHOICE.REST + k] = hosts[k]!.activeRequests;
    put(memory, (p + CHOICE.REST + active) * 4, text);
    this.#waitsAt = gate;
    this.#entry = gate.next;
    gate.send(this.#token, size);
    return true;
  }

  /** Tells the sandbox its hosts. While the gate is shut, through core, whose successful entry may open the gate again. */
  #tell(gate: Gate): void {
    if (this.#token === 0) this.#token = this.#table.acquire(this);
    if (this.#token === 0) return;
    const door = gate.isOpenNow ? gate : this.#doors.core;
    const { hosts } = this.#set;
    for (let from = 0; from < hosts.length; ) {
      const { text, next } = this.#textFrom(from);
      const size = recordSize(text.length, 0);
      let w = door.begin(size, KIND.HOSTS, RECORD_FLAG.CREATE, this.#token, this.#parked.use);
      if (w < 0 && door === gate) {
        // The block is full of hosts: entering makes room for the next ones.
        gate.enterNow();
        if (gate.isOpenNow)
          w = gate.begin(size, KIND.HOSTS, RECORD_FLAG.CREATE, this.#token, this.#parked.use);
      }
      if (w < 0) return;
      this.#write(door, w, text, size);
      from = next;
    }
    if (door !== gate) this.#isCores = true;
    this.#knownAt = gate;
  }

  #write(door: Door, w: number, text: string, size: number): void {
    door.words[w + RECORD.ARGUMENT] = text.length;
    put(door.memory, (w + RECORD.PAYLOAD) * 4, text);
    door.send(this.#token, size);
  }

  /** JSON of as many hosts, from index `from` on, as fit one record; `next`: the index of the first that did not. */
  #textFrom(from: number): { readonly text: string; readonly next: number } {
    const { key, hosts, shares } = this.#set;
    const told: ToldHost[] = [];
    let next = from;
    for (let size = 0; next < hosts.length; next++) {
      let host = toldHost(hosts[next]!);
      let { length } = ascii(JSON.stringify(host));
      if (length > HOSTS_TEXT) {
        host = { ...host, metadata: undefined };
        ({ length } = ascii(JSON.stringify(host)));
      }
      size += length;
      if (told.length > 0 && size > HOSTS_TEXT) break;
      told.push(host);
    }
    const part: ToldHosts = {
      key,
      hosts: told,
      shares: shares.slice(from, next),
      isFirst: from === 0,
      isLast: next === hosts.length,
    };
    return { text: ascii(JSON.stringify(part)), next };
  }

  /** Round robin. */
  #inTurn(): Host {
    this.#turns.inc();
    const { hosts } = this.#set;
    return hosts[this.#turn++ % hosts.length]!;
  }

  /** The balancer has failed or has no isolate: the failure policy decides. */
  #byPolicy(): Host | undefined {
    return this.#parked.failsOpen === true ? this.#inTurn() : undefined;
  }

  dispose(): void {
    if (this.#token === 0) return;
    this.#table.release(this.#parked.box, this.#token, this.#isCores ? undefined : this.#knownAt);
    this.#token = 0;
  }

  // ---- Parked

  gateOf(): Gate | undefined {
    return this.#waitsAt;
  }

  entryOf(): number {
    return this.#entry;
  }

  retry(): boolean {
    return true;
  }

  /** There was no answer in time; core takes the late one, and it is ignored. */
  onLate(): void {
    this.#waitsAt = undefined;
    this.#isCores = true;
  }

  onVerdict(_lane: number, at: number, size: number, status: number, source: AnswerSource): void {
    if (this.#waitsAt === undefined) return;
    this.#waitsAt = undefined;
    const w = at >> 2;
    const v = w + (ANSWER_HEAD_SIZE >> 2);
    const { words } = source;
    const isWhole =
      status === 0 &&
      words[w + ANSWER_HEAD.KIND] === ANSWER.VERDICT &&
      size >= ANSWER_HEAD_SIZE + VERDICT.REST * 4;
    const type = isWhole ? words[v + VERDICT.TYPE]! & 0xff : VERDICT_TYPE.FAULT;
    const chosen = words[v + VERDICT.VALUE]!;
    if (type === VERDICT_TYPE.STOP) this.#answer = UNKNOWN;
    else if (type !== VERDICT_TYPE.GO_ON) this.#answer = FAULT;
    else this.#answer = chosen >= 0 && chosen < this.#set.hosts.length ? chosen : NONE;
  }
}

function toldHost(host: Host): ToldHost {
  const { address, key, hostname, weight, priority, metadata, health, healthy, healthySince } =
    host;
  const plain = { address, key, hostname, weight, metadata, healthy };
  return Object.assign(plain, { priority, health, healthySince }) as ToldHost;
}

const texts = new WeakMap<readonly MetadataCriterion[], string>();

/** JSON of the criteria, cached by the array, which all requests of a route share. */
function textOf(criteria: readonly MetadataCriterion[]): string {
  let text = texts.get(criteria);
  if (text === undefined) {
    text = ascii(JSON.stringify(criteria));
    texts.set(criteria, text);
  }
  return text;
}

function put(memory: Uint8Array, at: number, text: string): void {
  for (let k = 0; k < text.length; k++) memory[at + k] = text.charCodeAt(k);
}

function isLocalities(value: unknown): value is LocalityPolicy {
  const { type, ...more } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (type === "weighted") return true;
  return (
    type === "zone_aware" &&
    typeof more["routingEnabled"] === "number" &&
    typeof more["minClusterSize"] === "number" &&
    typeof more["failTrafficOnPanic"] === "boolean" &&
    ["number", "undefined"].includes(typeof more["forceLocalZoneMinSize"]) &&
    typeof more["byWeight"] === "boolean"
  );
}
