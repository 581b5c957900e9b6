// Hot path: a host is chosen for every request.
import {
  type Balancer,
  type BalancerContext,
  type Host,
  type LevelPolicy,
  latin1Decode,
  type MetadataCriterion,
} from "@tsproxy/sdk";
import { ANSWER, CHOICE, CHOICE_FLAG, RECORD, VERDICT, VERDICT_TYPE } from "./layout.ts";
import type { Surroundings } from "./surroundings.ts";

/** A host as the chain sends it. */
export type ToldHost = Pick<
  Host,
  | "address"
  | "key"
  | "hostname"
  | "weight"
  | "priority"
  | "metadata"
  | "health"
  | "healthy"
  | "healthySince"
>;
/** The JSON of a HOSTS record: hosts of a set, which may need several records. */
export interface ToldHosts {
  readonly key: string;
  readonly hosts: readonly ToldHost[];
  readonly shares: readonly number[];
  readonly isFirst: boolean;
  readonly isLast: boolean;
}
/** The members of a policy that the chain needs; known once setup has run. */
export type ToldPolicy = Pick<LevelPolicy, "localities" | "hashing">;

/** A host as a sandboxed balancer sees it. */
class SandboxHost implements Host {
  readonly address: Host["address"];
  readonly key: string;
  readonly hostname: string;
  readonly weight: number;
  readonly priority?: number;
  readonly metadata?: unknown;
  readonly health?: NonNullable<Host["health"]>;
  readonly healthy: boolean;
  readonly healthySince?: number;
  activeRequests = 0;
  /** Its index in the set. */
  readonly index: number;

  constructor(told: ToldHost, index: number) {
    this.address = told.address;
    this.key = told.key;
    this.hostname = told.hostname;
    this.weight = told.weight;
    this.healthy = told.healthy;
    if (told.priority !== undefined) this.priority = told.priority;
    if (told.metadata !== undefined) this.metadata = told.metadata;
    if (told.health !== undefined) this.health = told.health;
    if (told.healthySince !== undefined) this.healthySince = told.healthySince;
    this.index = index;
  }

  get onLoadReport(): undefined {
    return undefined;
  }
  set onLoadReport(_: Host["onLoadReport"]) {
    throw new Error("responses do not come to a balancer in a sandbox");
  }
  onResponse(): never {
    throw new Error("a balancer in a sandbox makes no attempts");
  }
  onTimeout(): never {
    return this.onResponse();
  }
  onReset(): never {
    return this.onResponse();
  }
}

/** One set of hosts and its balancer. */
export class BalancerState {
  readonly token: number;
  readonly policy: LevelPolicy;
  readonly hosts: SandboxHost[] = [];
  readonly shares: number[] = [];
  balancer: Balancer | undefined = undefined;

  constructor(token: number, policy: LevelPolicy) {
    this.token = token;
    this.policy = policy;
  }
}

/** The balancers that this package has created (../parked-balancer.ts is the other half). */
export class BalancerTable {
  readonly #around: Surroundings;
  readonly #policies = new Map<number, LevelPolicy>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  addUse(id: number, policy: LevelPolicy): void {
    this.#policies.set(id, policy);
  }

  removeUse(id: number): void {
    this.#policies.delete(id);
  }

  create(token: number, words: Int32Array, w: number): BalancerState | undefined {
    const policy = this.#policies.get(words[w + RECORD.USE]!);
    return policy && new BalancerState(token, policy);
  }

  /** A HOSTS record; with the last hosts of the set the balancer is created. */
  learn(state: BalancerState, words: Int32Array, bytes: Uint8Array, w: number): void {
    const at = (w + RECORD.PAYLOAD) * 4;
    const text = latin1Decode(bytes, at, at + words[w + RECORD.ARGUMENT]!);
    const { key, hosts: told, shares, isFirst, isLast } = JSON.parse(text) as ToldHosts;
    const { hosts } = state;
    if (isFirst) {
      this.#dispose(state);
      hosts.length = state.shares.length = 0;
    }
    for (const host of told) hosts.push(new SandboxHost(host, hosts.length));
    state.shares.push(...shares);
    if (!isLast) return;
    try {
      state.balancer = state.policy.create({ key, hosts: [...hosts], shares: [...state.shares] });
    } catch (error) {
      this.#around.thrown(state.token, "create", error);
    }
  }

  /** A CHOOSE record. `state` undefined: the hosts are not known here, and the answer asks the chain for them. */
  choose(
    token: number,
    state: BalancerState | undefined,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
  ): void {
    let type: number = state === undefined ? VERDICT_TYPE.STOP : VERDICT_TYPE.FAULT;
    let chosen = -1;
    if (state?.balancer !== undefined) {
      const { hosts, balancer } = state;
      const p = w + RECORD.PAYLOAD;
      const active = Math.min(words[p + CHOICE.ACTIVE]!, hosts.length);
      for (let k = 0; k < active; k++) hosts[k]!.activeRequests = words[p + CHOICE.REST + k]!;
      try {
        const context = this.#context(words, bytes, p);
        const host: unknown = balancer.choose(context, words[p + CHOICE.ATTEMPT]!);
        // Anything else that it returns means no host.
        if (host instanceof SandboxHost && hosts[host.index] === host) chosen = host.index;
        type = VERDICT_TYPE.GO_ON;
      } catch (error) {
        this.#around.thrown(token, "choose", error);
      }
    }
    const { outbox } = this.#around;
    const at = outbox.open(ANSWER.VERDICT, token, 0, VERDICT.REST * 4) >> 2;
    outbox.words[at + VERDICT.TYPE] = type;
    outbox.words[at + VERDICT.HOOKS] = outbox.words[at + VERDICT.BODY] = 0;
    outbox.words[at + VERDICT.VALUE] = chosen;
    outbox.close();
  }

  #context(words: Int32Array, bytes: Uint8Array, p: number): BalancerContext {
    const flags = words[p + CHOICE.FLAGS]!;
    if (flags === 0) return NOTHING_KNOWN;
    const context: { -readonly [K in keyof BalancerContext]: BalancerContext[K] } = {};
    if ((flags & CHOICE_FLAG.HASH) !== 0) {
      const high = BigInt(words[p + CHOICE.HASH_HIGH]! >>> 0);
      context.hash = (high << 32n) | BigInt(words[p + CHOICE.HASH_LOW]! >>> 0);
    }
    if ((flags & CHOICE_FLAG.HIGH) !== 0) context.priority = "high";
    if ((flags & CHOICE_FLAG.METADATA) !== 0) {
      const at = (p + CHOICE.REST + words[p + CHOICE.ACTIVE]!) * 4;
      const text = latin1Decode(bytes, at, at + words[p + CHOICE.TEXT]!);
      // Cached, so that equal criteria are the same array.
      context.metadataMatch = this.#around.routeConfigs.get(text) as readonly MetadataCriterion[];
    }
    return context;
  }

  end(state: BalancerState): void {
    this.#dispose(state);
  }

  #dispose(state: BalancerState): void {
    const { balancer } = state;
    state.balancer = undefined;
    try {
      balancer?.dispose?.();
    } catch (error) {
      this.#around.thrown(state.token, "dispose", error);
    }
  }
}

const NOTHING_KNOWN: BalancerContext = Object.freeze({});
