/** Milliseconds after the last event at which to look again. Only the last of these looks may report problems. */
const LOOK_AGAIN_MS = 60;
const LAST_LOOK_MS = 250;
/** With constant saves, the last look still comes this many milliseconds after the first event. */
const LAST_LOOK_AT_MOST_MS = 2_000;
/** Milliseconds between two looks at a busy directory. */
const BETWEEN_LOOKS_MS = 5;
/** Of a rest, so much is put off: a save finds the looks that belong to the save before it, and waits for none of their rests. */
const REST_LATER_MS = 4 * BETWEEN_LOOKS_MS;

/**
 * Decides when to look: at once after an event, and again 60 and 250 ms after the last one, because a file may still be being written,
 * and events that follow each other closely may be lost. There is one look at a time; an event during it leads to another.
 */
export class Looks {
  readonly #look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>;
  readonly #touched = new Set<string>();
  #timers: NodeJS.Timeout[] = [];
  /** The last look, when it is due. */
  #dueSoon: NodeJS.Immediate | undefined;
  #firstEvent: number | undefined;
  #running: Promise<void> | undefined;
  #due = false;
  #lastDue = false;
  /** When looks will have rested for all there were. */
  #restedAt = 0;

  /** `look` gets all directories with an event since the last final look. It must not reject. */
  constructor(look: (directories: ReadonlySet<string>, last: boolean) => Promise<void>) {
    this.#look = look;
  }

  event(directory: string): void {
    this.#touched.add(directory);
    this.#clear();
    const now = performance.now();
    this.#firstEvent ??= now;
    const last = Math.min(LAST_LOOK_MS, Math.max(0, this.#firstEvent + LAST_LOOK_AT_MOST_MS - now));
    // One that waits for the present look to end would judge too soon.
    if (last > 0) this.#lastDue = false;
    this.#timers = [
      setTimeout(() => this.#want(false), LOOK_AGAIN_MS),
      setTimeout(() => this.#wantLast(), last),
    ];
    this.#want(false);
  }

  /** Asks for another look, because the present one could not judge something yet. */
  again(ms: number, last: boolean): void {
    this.#timers.push(setTimeout(() => this.#want(last), ms));
  }

  /** Settles when no look is running. */
  async close(): Promise<void> {
    this.#clear();
    this.#due = this.#lastDue = false;
    await this.#running;
  }

  /**
   * After a turn that took long, timers come before events that were there first: those are heard before the last look, which judges.
   * Not for ever, though.
   */
  #wantLast(): void {
    const waitedMs = performance.now() - this.#firstEvent!;
    if (waitedMs >= LAST_LOOK_AT_MOST_MS) this.#want(true);
    else this.#dueSoon = setImmediate(() => this.#want(true));
  }

  #want(last: boolean): void {
    this.#due = true;
    if (last) this.#lastDue = true;
    this.#running ??= this.#run();
  }

  async #run(): Promise<void> {
    while (this.#due) {
      const last = this.#lastDue;
      this.#due = this.#lastDue = false;
      const directories = new Set(this.#touched);
      if (last) {
        this.#touched.clear();
        this.#firstEvent = undefined;
      }
      await this.#look(directories, last);
      await this.#rest();
    }
    this.#running = undefined;
  }

  #rest(): Promise<void> {
    const now = performance.now();
    this.#restedAt = Math.max(this.#restedAt, now) + BETWEEN_LOOKS_MS;
    const ms = this.#restedAt - now - REST_LATER_MS;
    return new Promise((resolve) => (ms > 0 ? setTimeout(resolve, ms) : setImmediate(resolve)));
  }

  #clear(): void {
    for (const timer of this.#timers) clearTimeout(timer);
    this.#timers = [];
    clearImmediate(this.#dueSoon);
  }
}
