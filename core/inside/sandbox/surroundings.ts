import { type CellHeap, latin1Decode, Runtime, type Timer } from "@tsproxy/sdk";
import { ascii } from "../ascii.ts";
import { StatsTable } from "../stats.ts";
import { TimerWheel, type WheelTimer } from "../timers.ts";
import { CryptoCalls, type CryptoReply } from "./crypto-calls.ts";
import { Fetches, type FetchMessage, type FetchReply } from "./fetches.ts";
import { SandboxFiles } from "./files.ts";
import { ANSWER, BOX, RECORD, STATS_CELLS } from "./layout.ts";
import { Outbox } from "./outbox.ts";
import { Running } from "./running.ts";

const THROWN_A_SECOND = 20; // errors sent with message and stack; further ones are only counted
const LINES_A_SECOND = 1000; // log lines; the next line or error of a later second reports how many were dropped
const TEXT_MAX = 4096;

/** What everything in one sandbox shares: the block, outbox, clock, stats, log and calls to core. */
export class Surroundings {
  readonly words: Int32Array;
  readonly longs: BigInt64Array;
  readonly bytes: Uint8Array;
  readonly outbox: Outbox;
  readonly running: Running;
  readonly clock: Clock;
  readonly stats: StatsTable;
  readonly runtime = new Runtime();
  /** Undefined: the package has no shared cells, or this is the canary. */
  cells: CellHeap | undefined = undefined;
  readonly routeConfigs = new RouteConfigs();
  node: { readonly id: string; readonly cluster: string; readonly address?: string } = {
    id: "",
    cluster: "",
  };
  worker = 0;
  readonly fetches: Fetches;
  readonly crypto: CryptoCalls;
  readonly files: SandboxFiles;
  /** Records have come: log lines are about traffic now. Those of setup, which all workers run, are logged once by core. */
  serves = false;
  #second = 0;
  #thrown = 0;
  #lines = 0;
  #dropped = 0;

  /** `seed`: random bytes; call ids start from it, so that replies to an earlier isolate's calls match none of this one's. */
  constructor(box: SharedArrayBuffer, stats: SharedArrayBuffer, seed: string) {
    this.words = new Int32Array(box);
    this.longs = new BigInt64Array(box);
    this.bytes = new Uint8Array(box);
    this.outbox = new Outbox(this.words, this.bytes);
    this.files = new SandboxFiles(this.outbox);
    this.running = new Running(this.words);
    this.clock = new Clock(box, this.running, (error) => this.thrown(0, "timer", error));
    this.stats = new StatsTable(new Float64Array(stats, 0, STATS_CELLS), () =>
      this.log("warn", "no cells are left for further stats", {}),
    );
    let firstCall = 1;
    for (let k = 0; k < 5; k++) firstCall = firstCall * 256 + (seed.charCodeAt(k) || 0);
    const { outbox } = this;
    const way = {
      send: (message: FetchMessage, bytes: Uint8Array) => this.#call(ANSWER.FETCH, message, bytes),
      get room() {
        return outbox.room;
      },
    };
    const timer = (onFired: () => void) => this.clock.timer(onFired);
    this.fetches = new Fetches(way, timer, this.running, firstCall);
    this.crypto = new CryptoCalls(
      (message, bytes) => this.#call(ANSWER.CRYPTO, message, bytes),
      this.running,
      firstCall,
    );
  }

  /** Sends a call that core answers with a REPLY record in a later entry. */
  #call(kind: number, head: object, bytes: Uint8Array): void {
    const text = ascii(JSON.stringify(head));
    const { outbox } = this;
    const at = outbox.open(kind, 0, text.length, text.length + bytes.length);
    outbox.bytes.set(bytes, outbox.latin1(text, at));
    outbox.close();
  }

  /** Core's reply to a call: the record begins at word `w`, its range is [from, end). */
  onReply(words: Int32Array, w: number, from: number, end: number): void {
    const at = (w + RECORD.PAYLOAD) * 4;
    const text = latin1Decode(this.bytes, at, at + words[w + RECORD.ARGUMENT]!);
    const reply = JSON.parse(text) as FetchReply | CryptoReply;
    const bytes = this.bytes.slice(from, end);
    if (reply.to === "fetch") this.fetches.onReply(reply, bytes);
    else this.crypto.onReply(reply, bytes);
  }

  /** When a new second has begun, resets the counts and logs how many lines the last one dropped. */
  #tick(): void {
    const second = Math.floor(this.clock.now / 1000);
    if (second === this.#second) return;
    const dropped = this.#dropped;
    this.#second = second;
    this.#thrown = this.#lines = this.#dropped = 0;
    if (dropped > 0) this.log("warn", `${dropped} lines of log dropped: too many in a second`, {});
  }

  log(level: string, message: string, fields: object): void {
    this.#tick();
    if (this.#lines++ >= LINES_A_SECOND || !this.outbox.takesLines) {
      this.#dropped++;
      return;
    }
    // A filter in plain JavaScript may pass any type.
    const text = String(message).slice(0, TEXT_MAX);
    const { serves } = this;
    // Fields that are too long, or no JSON, are left out: escaped, half of the longest text still fits.
    const brief = { level, message: text.slice(0, TEXT_MAX / 2), fields: {}, serves };
    this.#tell(ANSWER.LOG, 0, { level, message: text, fields, serves }, brief);
  }

  /**
   * Reports what a hook threw. Core counts every error; only the first THROWN_A_SECOND of a second carry message and stack.
   * `returned`: the filter whose hook has returned what is refused. The stack then names no line of the filter: core finds the one of
   * the hook by the hook's text.
   */
  thrown(token: number, hook: string, error: unknown, returned?: object): void {
    this.#tick();
    if (this.#thrown++ >= THROWN_A_SECOND) {
      this.outbox.open(ANSWER.THROWN, token, 0, 0);
      this.outbox.close();
      return;
    }
    const { message, stack } = describeError(error);
    const code = returned && textOf(returned, hook);
    this.#tell(ANSWER.THROWN, token, { hook, message, stack, code }, { hook, message });
  }

  /** Tells core the names of stats that are new since the last call. */
  tellStats(): void {
    if (!this.stats.hasNews) return;
    // Listed stats get their cells at once: a sandbox has few, and tells core of them one by one.
    this.stats.defineListed();
    const defined = this.stats.defined;
    this.stats.defined = [];
    for (const stat of defined) this.#tell(ANSWER.STATS, 0, stat);
  }

  /** `brief`: what core is told where the value is too long or no JSON. */
  #tell(kind: number, token: number, value: unknown, brief: unknown = {}): void {
    const text = encode(value, brief, 4 * TEXT_MAX);
    this.outbox.send(kind, token, 0, text, 0, text.length);
  }
}

/** JSON in ASCII, chars beyond it as \u escapes; that of `brief` if the value's is longer than `max` chars or it is no JSON. */
function encode(value: unknown, brief: unknown, max: number): Uint8Array {
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch {
    // For example a BigInt, a circular object, or a `toJSON` that throws.
  }
  if (text === undefined || text.length > max) text = JSON.stringify(brief);
  const bytes: number[] = [];
  for (let k = 0; k < text.length; k++) {
    const code = text.charCodeAt(k);
    if (code < 128) bytes.push(code);
    else
      for (const char of `\\u${code.toString(16).padStart(4, "0")}`) bytes.push(char.charCodeAt(0));
  }
  return Uint8Array.from(bytes);
}

/** Message and stack of anything that was thrown. Never throws, even if the error's own getters do. */
export function describeError(error: unknown): { message: string; stack: string } {
  try {
    if (error instanceof Error) {
      return {
        message: String(error.message).slice(0, TEXT_MAX),
        stack: String(error.stack ?? "").slice(0, TEXT_MAX),
      };
    }
    return { message: String(error).slice(0, TEXT_MAX), stack: "" };
  } catch {
    return { message: "an error that cannot be read", stack: "" };
  }
}

/** The source text of a hook, or how it begins. Undefined: it cannot be told. */
function textOf(filter: object, hook: string): string | undefined {
  try {
    const text = String((filter as Readonly<Record<string, unknown>>)[hook]);
    return text.slice(0, TEXT_MAX);
  } catch {
    return undefined;
  }
}

/** Timers of a sandbox: a wheel, and BOX.WAKE_AT, which tells core when to enter next. */
class Clock {
  readonly #wheel: TimerWheel;
  readonly #running: Running;
  readonly #times: Float64Array;
  /** What is due, but must wait for the next entry. */
  #soon: Callback[] = [];
  readonly #onError: (error: unknown) => void;

  constructor(box: SharedArrayBuffer, running: Running, onError: (error: unknown) => void) {
    this.#running = running;
    this.#times = new Float64Array(box);
    this.#wheel = new TimerWheel(onError, () => this.#wakeForTimers());
    this.#onError = onError;
    this.#times[WAKE_AT] = Number.POSITIVE_INFINITY;
    this.begin();
  }

  get now(): number {
    return this.#wheel.now;
  }

  timer(onFired: () => void): Timer {
    const { use, part } = this.#running;
    return new SandboxTimer(this.#wheel, { use, part, call: onFired }, (due) => this.#run(due));
  }

  /** Calls back in the next entry, which core makes at once. */
  soon(call: () => void): void {
    const { use, part } = this.#running;
    this.#later({ use, part, call });
  }

  #later(callback: Callback): void {
    this.#soon.push(callback);
    this.#times[WAKE_AT] = this.now;
  }

  #wakeForTimers(): void {
    const ms = this.#wheel.wakeIn();
    const at = this.now + ms;
    if (ms >= 0 && at < this.#times[WAKE_AT]!) this.#times[WAKE_AT] = at;
  }

  /** An entry begins. */
  begin(): void {
    this.#wheel.now = this.#times[NOW]!;
  }

  /** Fires due timers, those that had to wait before first. */
  fire(): void {
    this.#times[WAKE_AT] = Number.POSITIVE_INFINITY;
    if (this.#soon.length > 0) {
      const callbacks = this.#soon;
      this.#soon = [];
      for (const callback of callbacks) {
        try {
          this.#run(callback);
        } catch (error) {
          this.#onError(error);
        }
      }
    }
    this.#wheel.advance(this.now);
    this.#wakeForTimers();
  }

  /** Calls it for the account that has asked for it, in this entry or, if that is another account's, in a later one. */
  #run(callback: Callback): void {
    const { use, part, call } = callback;
    if (this.#running.lets(use, part)) {
      this.#running.enter(use, part);
      call();
    } else this.#later(callback);
  }
}

/** What is to be called later, and the account that it is charged to. */
interface Callback {
  readonly use: number;
  readonly part: number;
  readonly call: () => void;
}

const NOW = BOX.NOW / 2;
const WAKE_AT = BOX.WAKE_AT / 2;

/** A timer that takes any number of milliseconds that a package gives it. */
class SandboxTimer implements Timer {
  readonly #timer: WheelTimer;
  /** It is due, and has not been called yet. */
  #isDue = false;

  constructor(wheel: TimerWheel, { use, part, call }: Callback, run: (callback: Callback) => void) {
    const due = {
      use,
      part,
      call: () => {
        if (!this.#isDue) return;
        this.#isDue = false;
        call();
      },
    };
    this.#timer = wheel.timer(() => {
      this.#isDue = true;
      run(due);
    });
  }
  arm(ms: number): void {
    this.#isDue = false;
    // NaN and Infinity would never leave the wheel.
    this.#timer.arm(ms >= 0 ? Math.min(ms, 0x7fff_ffff) : 0);
  }
  cancel(): void {
    this.#isDue = false;
    this.#timer.cancel();
  }
  get armed(): boolean {
    return this.#isDue || this.#timer.armed;
  }
}

const ROUTE_CONFIGS_KEPT = 1024;

/** Parsed JSON by its text, so that streams of one route share one config object, as they do outside a sandbox. */
export class RouteConfigs {
  readonly #byText = new Map<string, readonly unknown[]>();

  get(text: string): readonly unknown[] {
    let configs = this.#byText.get(text);
    if (configs === undefined) {
      configs = JSON.parse(text) as readonly unknown[];
      if (this.#byText.size >= ROUTE_CONFIGS_KEPT) this.#byText.clear();
      this.#byText.set(text, configs);
    }
    return configs;
  }
}
