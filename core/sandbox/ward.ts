import type { SandboxUse } from "../inside/sandbox/context.ts";
import { type Account, Accounts, keyOf } from "./accounts.ts";
import type { Inbox } from "./inbox.ts";
import type { Renewals } from "./renewals.ts";
import type { Sandbox } from "./sandbox.ts";
import type { Tokens } from "./tokens.ts";

/** The isolate of all others is built anew first. */
const BUILT_AFTER_MS = 25;

/**
 * Where places of a package go on whose code was stopped: in an isolate apart, which is entered on another thread. What they do next
 * costs the package's other places nothing. A place comes back when its breaker has forgiven it.
 *
 *   serves with all ──its code is stopped──▶ confined ──a minute without a fault──▶ serves with all
 */
export class Ward {
  readonly accounts: Accounts;
  readonly #make: () => Sandbox;
  readonly #onConfined: (account: Account, isConfined: boolean) => void;
  readonly #confined = new Map<number, Account>();
  /** Undefined: nobody is confined, and no stream of one who was is left. */
  #sandbox: Sandbox | undefined = undefined;

  /** `make`: the sandbox, with these accounts. */
  constructor(
    make: (accounts: Accounts) => Sandbox,
    pauseMs: number,
    onConfined: (account: Account, isConfined: boolean) => void,
  ) {
    this.accounts = new Accounts(pauseMs);
    this.#make = () => make(this.accounts);
    this.#onConfined = onConfined;
  }

  get sandbox(): Sandbox | undefined {
    return this.#sandbox;
  }

  /** Undefined: that account is not confined. */
  sandboxOf(account: Account): Sandbox | undefined {
    return this.#confined.has(keyOf(account)) ? this.#sandbox : undefined;
  }

  /** The code of this account was stopped. `accounts`: those that have counted it. */
  confine(account: Account, use: SandboxUse, accounts: Accounts): void {
    // Stopped once more where all others are, by a timer of its setup: that is counted there.
    const key = keyOf(account);
    if (this.#confined.has(key)) return;
    accounts.moveTo(this.accounts, account);
    this.#confined.set(key, account);
    this.#sandbox ??= this.#make();
    this.#sandbox.adopt(use, BUILT_AFTER_MS);
    this.#onConfined(account, true);
  }

  /** The sandbox here, if it is to take a record of that stream; `isNew`: the record may begin the stream. */
  takesOver(token: number, isNew: boolean, account: Account): Sandbox | undefined {
    const sandbox = this.#sandbox;
    const isHeld = sandbox?.holds(token) === true;
    if (!isNew) return isHeld ? sandbox : undefined;
    const own = this.sandboxOf(account);
    // A question (ParkedAsk) whose token is from before: its place has come back.
    if (own === undefined && isHeld) sandbox!.forget(token);
    return own;
  }

  /** Of the streams `kept` for the next isolate of all others, those of confined places wait for the one here. */
  takeKept(kept: ReadonlySet<number>, tokens: Tokens, inbox: Inbox, renewals: Renewals): void {
    for (const base of kept) {
      const account = tokens.accountOf(base);
      const sandbox = this.sandboxOf(account);
      if (sandbox === undefined) continue;
      const lanes = [base, base | 1].filter((token) => tokens.isWaiting(token));
      tokens.remove(base);
      sandbox.moveIn(base, account, lanes, inbox.takeOut(base), renewals.takeOut(base));
    }
  }

  /** To be called once a second. */
  expire(now: number): void {
    const sandbox = this.#sandbox;
    if (sandbox === undefined) return;
    sandbox.expire(now);
    for (const [key, account] of this.#confined) {
      if (this.accounts.has(account)) continue;
      this.#confined.delete(key);
      this.#onConfined(account, false);
    }
    if (this.#confined.size > 0 || sandbox.live > 0) return;
    this.#sandbox = undefined;
    void sandbox.finish();
  }

  /** The use has ended. */
  async release(use: number): Promise<void> {
    for (const [key, account] of this.#confined)
      if (account.use === use) this.#confined.delete(key);
    await this.#sandbox?.release(use);
  }
}
