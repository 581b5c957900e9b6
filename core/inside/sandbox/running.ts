// Hot path: every record is noted here before its hook is called (test/bench/sandbox.ts).
import { BOX } from "./layout.ts";

/**
 * Tells core, by words of the block, whose code runs now: when core has to stop the isolate, it charges the fault to that account.
 * Promises go on after all records of an entry; if these were of several accounts, nobody can tell whose promise it is.
 */
export class Running {
  readonly #words: Int32Array;
  #isFirst = true;
  #isMixed = false;

  constructor(words: Int32Array) {
    this.#words = words;
  }

  get use(): number {
    return this.#words[BOX.USE]!;
  }
  get part(): number {
    return this.#words[BOX.PART]!;
  }

  beginEntry(): void {
    const words = this.#words;
    words[BOX.BEGUN] = words[BOX.USE] = words[BOX.PART] = 0;
    this.#isFirst = true;
    this.#isMixed = false;
  }

  /** Code of this account runs from now on. */
  enter(use: number, part: number): void {
    const words = this.#words;
    if (this.#isFirst) this.#isFirst = false;
    else if (words[BOX.USE] !== use || words[BOX.PART] !== part) this.#isMixed = true;
    words[BOX.USE] = use;
    words[BOX.PART] = part;
  }

  /** All records have been handled, and promises go on. */
  endEntry(): void {
    if (this.#isMixed) this.#words[BOX.USE] = this.#words[BOX.PART] = 0;
  }

  /** Whether code of this account may run in this entry: core has asked for an entry of one account alone. */
  lets(use: number, part: number): boolean {
    const words = this.#words;
    return (
      words[BOX.ALONE] === 0 ||
      this.#isFirst ||
      (words[BOX.USE] === use && words[BOX.PART] === part)
    );
  }
}
