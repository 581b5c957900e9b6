import {
  ConfigError,
  type Definition,
  type ExtensionRef,
  type Generation,
  type Kind,
  type Kinds,
  type NetworkFilterFactory,
  type SetupContext,
  SetupErrors,
  type Slot,
} from "@tsproxy/sdk";
import type { Refusal } from "../protocol.ts";
import { misuse } from "./made.ts";
import type { LentStats } from "./stats.ts";

/** Makes the `cx` of one setup. The registry calls it; the engine provides it (context.ts). */
type ContextMaker = (scope: Scope) => SetupContext;

/** One place in the config that uses a package. */
export interface Place {
  /** Pointer into the RuntimeConfig. */
  readonly pointer: string;
  /** The stat prefix that the package in which it is nested gives it; "" for none. */
  readonly statPrefix: string;
  /** Stat prefix of the listener; only for network filters of a chain. */
  readonly listenerStatPrefix?: string;
  /** Of a child context (`cx.child`), and of what is nested in it: the stats that are given back at its end. */
  readonly lent?: LentStats;
}

/** What one setup has made: slots of nested packages, and disposers to run at its end. */
export class Scope {
  readonly registry: Registry;
  readonly package: string;
  readonly place: Place;
  readonly previous: unknown;
  /** Which change it was prepared for (`Registry.change`). What is nested in it later takes its code from there too. */
  readonly change: number;
  readonly children: SlotState[] = [];
  /** Number of nested uses so far, by kind and name. This and the next are made when needed: of thousands of scopes few have any. */
  #named: Map<string, number> | undefined = undefined;
  #disposers: Set<() => void> | undefined = undefined;
  handover: (() => unknown) | undefined = undefined;
  #disposed = false;

  constructor(
    registry: Registry,
    packageName: string,
    place: Place,
    previous: unknown,
    change = registry.change,
  ) {
    this.registry = registry;
    this.change = change;
    this.package = packageName;
    this.place = place;
    this.previous = previous;
  }

  /**
   * Makes the place of one more nested use: `/http:name`. A second use of that name is `/http#2:name`, and so on, so that uses share
   * no cells.
   */
  nestedPlace(kind: string, name: string): string {
    const key = `${kind}:${name}`;
    this.#named ??= new Map();
    const count = (this.#named.get(key) ?? 0) + 1;
    this.#named.set(key, count);
    const number = count > 1 ? `#${count}` : "";
    return `${this.place.pointer}/${kind}${number}:${name.replaceAll("~", "~0").replaceAll("/", "~1")}`;
  }

  onDispose(dispose: () => void): void {
    if (this.#disposed) dispose();
    else (this.#disposers ??= new Set()).add(dispose);
  }

  /** For a disposer whose work has been done before the end. */
  forget(dispose: () => void): void {
    this.#disposers?.delete(dispose);
  }

  /** Runs the disposers, latest first, and retires the nested slots. It forgets both: a context may live longer than its setup. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    const disposers = [...(this.#disposers ?? [])].reverse();
    this.#disposers = undefined;
    for (const dispose of disposers) {
      try {
        dispose();
      } catch (error) {
        this.registry.onError(this.package, error);
      }
    }
    for (const child of this.children.splice(0)) child.retire();
  }
}

/** The value of one setup. Connections and streams acquire it while they use it; once retired, the last release disposes it. */
class GenerationState<T> implements Generation<T> {
  readonly value: T;
  readonly number: number;
  scope: Scope;
  #uses = 0;
  #retired = false;

  constructor(value: T, number: number, scope: Scope) {
    this.value = value;
    this.number = number;
    this.scope = scope;
  }

  acquire(): void {
    this.#uses++;
  }

  release(): void {
    if (--this.#uses === 0 && this.#retired) this.scope.dispose();
  }

  /** Nobody acquires it from now on; it is disposed with its last release. */
  retire(): void {
    this.#retired = true;
    if (this.#uses === 0) this.scope.dispose();
  }
}

/** One living use of a package: the generation that runs, and the one that a change has prepared. */
export class SlotState<T = unknown> implements Slot<T> {
  readonly kind: Kind;
  readonly place: Place;
  ref: ExtensionRef;
  current: GenerationState<T>;
  /** The generation that is prepared but not committed; `nextRef`: its config. */
  next: GenerationState<T> | undefined = undefined;
  nextRef: ExtensionRef | undefined = undefined;
  /** A prepared change of config that the running value can apply to itself. */
  reconfiguration: { readonly apply: () => void; readonly scope: Scope } | undefined = undefined;
  readonly #registry: Registry;

  constructor(
    registry: Registry,
    kind: Kind,
    ref: ExtensionRef,
    place: Place,
    first: GenerationState<T>,
  ) {
    this.#registry = registry;
    this.kind = kind;
    this.ref = ref;
    this.place = place;
    this.current = first;
  }

  commit(): void {
    const change = this.reconfiguration;
    if (change !== undefined) {
      this.reconfiguration = undefined;
      change.apply();
      const before = this.current.scope;
      this.current.scope = change.scope;
      if (this.nextRef !== undefined) this.ref = this.nextRef;
      this.nextRef = undefined;
      before.dispose();
    }
    const next = this.next;
    if (next === undefined) return;
    const old = this.current;
    this.current = next;
    this.next = undefined;
    if (this.nextRef !== undefined) this.ref = this.nextRef;
    this.nextRef = undefined;
    old.retire();
  }

  abort(): void {
    this.reconfiguration?.scope.dispose();
    this.reconfiguration = undefined;
    this.next?.scope.dispose();
    this.next = undefined;
    this.nextRef = undefined;
  }

  retire(): void {
    this.#registry.forget(this);
    this.abort();
    this.current.retire();
  }
}

/** Definitions by package name. */
export type Bundle = ReadonlyMap<string, Definition>;

/**
 * The definitions (code) of packages and every use (slot) of them. A change goes `begin`, then `create`, `renew`, `reconfigure`
 * and `prepareCode` beside what runs, then `commit`, which replaces everything in one step, or `abort`, which drops the change.
 */
export class Registry {
  readonly #slots = new Set<SlotState>();
  readonly onError: (packageName: string, error: unknown) => void;
  readonly #demand: (packageName: string, isPrepared: boolean) => Definition | undefined;
  #definitions = new Map<string, Definition>();
  /** While a change is prepared: the definitions after it. */
  #pending: Map<string, Definition> | undefined = undefined;
  #makeContext: ContextMaker = () => {
    throw new Error("no context yet");
  };
  generation = 0;
  /** The latest change, counted. */
  change = 0;

  /**
   * `demand` loads the definition of a package that has not been used before; `isPrepared`: with the code that it has after the
   * change, else with the one that serves.
   */
  constructor(
    onError: (packageName: string, error: unknown) => void,
    demand: (packageName: string, isPrepared: boolean) => Definition | undefined = () => undefined,
  ) {
    this.onError = onError;
    this.#demand = demand;
  }

  set contextMaker(make: ContextMaker) {
    this.#makeContext = make;
  }

  /** The code of a package for what was prepared for that change: while it is pending the code after it, else that which serves. */
  definition(packageName: string, change = this.change): Definition | undefined {
    const pending = change === this.change ? this.#pending : undefined;
    const definitions = pending ?? this.#definitions;
    const known = definitions.get(packageName);
    if (known !== undefined) return known;
    const found = this.#demand(packageName, pending !== undefined);
    if (found !== undefined) definitions.set(packageName, found);
    return found;
  }

  /** A change begins: the packages in `changed` are new or have new code. */
  begin(generation: number, changed: Bundle, removed: readonly string[]): void {
    this.generation = generation;
    this.change++;
    this.#pending = new Map(this.#definitions);
    for (const [name, definition] of changed) this.#pending.set(name, definition);
    for (const name of removed) this.#pending.delete(name);
  }

  /** Sets changed packages up for every living use that a config change has not dealt with already. */
  prepareCode(changed: Bundle, refusals: Refusal[]): void {
    for (const slot of [...this.#slots]) {
      if (
        slot.next !== undefined ||
        slot.reconfiguration !== undefined ||
        !changed.has(slot.ref.package) ||
        !this.#slots.has(slot)
      )
        continue;
      if (slot.current.number === this.generation) continue;
      this.attempt(slot.ref.package, slot.place.pointer, refusals, () =>
        this.renew(slot, slot.ref),
      );
    }
  }

  commit(): void {
    if (this.#pending !== undefined) this.#definitions = this.#pending;
    this.#pending = undefined;
    for (const slot of [...this.#slots]) slot.commit();
  }

  abort(): void {
    this.#pending = undefined;
    for (const slot of [...this.#slots]) slot.abort();
  }

  /**
   * Sets a package up for a new use. The slot lives until its owner retires it. Throws if setup refuses. `change`: of the scope that it
   * is nested in. One that serves already begins with the code that serves, and gets new code with the change that is pending.
   */
  create<K extends Kind>(
    kind: K,
    ref: ExtensionRef,
    place: Place,
    previous: unknown,
    change = this.change,
  ): SlotState<Kinds[K]> {
    const slot = new SlotState<Kinds[K]>(
      this,
      kind,
      ref,
      place,
      this.setup(kind, ref, place, previous, change),
    );
    this.#slots.add(slot as SlotState);
    if (change !== this.change) this.#catchUp(slot as SlotState, change);
    return slot;
  }

  /** A use that began while a change is pending was not there when the others were prepared for it. */
  #catchUp(slot: SlotState, change: number): void {
    if (this.#pending === undefined) return;
    const name = slot.ref.package;
    try {
      const next = this.definition(name);
      if (next === undefined || next === this.definition(name, change)) return;
      this.renew(slot, slot.ref);
    } catch (error) {
      this.onError(name, error);
    }
  }

  /** Prepares another generation of a living use, with the config in `ref`. Throws if setup refuses. */
  renew(slot: SlotState, ref: ExtensionRef): void {
    const handover = slot.current.scope.handover;
    const next = this.setup(slot.kind, ref, slot.place, handover?.());
    slot.next = next as GenerationState<unknown>;
    slot.nextRef = ref;
  }

  /** Prepares another config for a living network filter. If the filter can `reconfigure` itself, open connections get it too. */
  reconfigure(slot: SlotState<NetworkFilterFactory>, ref: ExtensionRef): void {
    const factory = slot.current.value;
    const sameCode = this.#pending?.get(ref.package) === this.#definitions.get(ref.package);
    if (factory.reconfigure === undefined || !sameCode) {
      this.renew(slot as never, ref);
      return;
    }
    const scope = new Scope(this, ref.package, slot.place, undefined);
    try {
      const apply = factory.reconfigure(ref.config, this.#makeContext(scope));
      if (apply !== undefined) {
        slot.reconfiguration = { apply, scope };
        slot.nextRef = ref;
        return;
      }
    } catch (error) {
      scope.dispose();
      throw error instanceof Refused ? error : new Refused(ref.package, slot.place.pointer, error);
    }
    scope.dispose();
    this.renew(slot as never, ref);
  }

  setup<K extends Kind>(
    kind: K,
    ref: ExtensionRef,
    place: Place,
    previous: unknown,
    change = this.change,
  ): GenerationState<Kinds[K]> {
    const definition = this.definition(ref.package, change);
    if (definition === undefined || definition.kind !== kind) {
      throw new ConfigError("", `no ${kind} package "${ref.package}"`);
    }
    const scope = new Scope(this, ref.package, place, previous, change);
    try {
      const value = definition.setup(ref.config as never, this.#makeContext(scope)) as Kinds[K];
      const wrong = misuse(kind, value);
      if (wrong !== undefined) throw new ConfigError("", wrong);
      return new GenerationState(value, this.generation, scope);
    } catch (error) {
      scope.dispose();
      throw error instanceof Refused ? error : new Refused(ref.package, place.pointer, error);
    }
  }

  forget(slot: SlotState): void {
    this.#slots.delete(slot);
  }

  /** Runs one step of a preparation; what it throws becomes a refusal. False: it threw. */
  attempt(packageName: string, place: string, refusals: Refusal[], run: () => void): boolean {
    try {
      run();
      return true;
    } catch (error) {
      const refused = error instanceof Refused ? error : new Refused(packageName, place, error);
      refusals.push(...refused.refusals);
      return false;
    }
  }
}

/** The errors of a setup, each with the innermost package and place: where the user has to look. */
class Refused extends Error {
  readonly refusals: readonly Refusal[];

  constructor(packageName: string, place: string, cause: unknown) {
    const errors = (cause instanceof SetupErrors ? cause.errors : [cause]).map((error) =>
      error instanceof Error ? error : new Error(String(error)),
    );
    super(errors.map((error) => error.message).join("; "));
    this.refusals = errors.flatMap((error) =>
      error instanceof Refused
        ? error.refusals
        : {
            package: packageName,
            place,
            path: error instanceof ConfigError ? error.path : "",
            message: error.message,
            stack: error instanceof ConfigError ? "" : (error.stack ?? ""),
          },
    );
  }
}
