import type { DnsResolverOptions } from "@tsproxy/sdk";
import type { Boxes, ToldPart, ToldUse } from "./boxes.ts";
import { Crypto } from "./crypto.ts";
import type { CryptoCall } from "./inside/crypto.ts";
import { chunkAt, chunkMemory } from "./inside/line-chunks.ts";
import { HISTOGRAM_CELLS, NAMED_ONLY, type StatDefinition } from "./inside/stats.ts";
import type { LocalServices } from "./local-services.ts";
import { GatheredLines, linesOfNow } from "./logs/gathered-lines.ts";
import type { FromWorker, SharedText } from "./protocol.ts";
import { readText } from "./shared-text.ts";
import { type Family, resolveName } from "./sockets/dns.ts";
import { steadyAt } from "./steady-clock.ts";

/** The thread whose builtin isolate calls. */
export interface BuiltinCallsParts {
  readonly post: (message: FromWorker) => void;
  /** WorkerStart.lines. */
  readonly lines: SharedArrayBuffer;
  readonly boxes: () => Boxes;
  /** Gives the answer to an operation to the isolate. */
  readonly reply: (call: number, value: unknown, error: string | undefined) => void;
  readonly onPrepared: (generation: number) => void;
}

/** What the builtin isolate calls core for (inside/host.ts), by name. It outlives the isolate. */
export class BuiltinCalls {
  /** What was published last on each topic. */
  readonly topics = new Map<string, SharedText>();
  /** The calls that the present isolate's files and certificates answer. */
  services: LocalServices | undefined = undefined;
  readonly #parts: BuiltinCallsParts;
  readonly #crypto = new Crypto();
  readonly #lines: GatheredLines;
  /** Where the isolate leaves lines of files for core. */
  readonly chunks = chunkMemory();
  #statsUsed = 0;

  constructor(parts: BuiltinCallsParts) {
    this.#parts = parts;
    this.#lines = new GatheredLines(parts.post, parts.lines);
  }

  /** Stats cells that have names: an isolate that is built in the place of a lost one must not use them. */
  get statsUsed(): number {
    return this.#statsUsed;
  }

  /** `text`: JSON of the argument, except for calls that carry bytes or lines. Answers what the call answers, if it does so at once. */
  call(name: string, text: string): string | void {
    switch (name) {
      case "lines":
        return this.#onLines(text);
      case "append":
        return this.#onAppended(text);
      case "flush":
        return this.#lines.flush(text);
      case "publish":
        return this.#onPublish(text);
      case "topic":
        return readText(this.topics.get(JSON.parse(text)) ?? "");
      case "topics":
        return this.#topicsOf(JSON.parse(text));
      case "fetched":
        return this.#onFetched(text);
    }
    const answer = this.services?.call(name, text);
    if (answer !== undefined) return answer;
    const { post, boxes, onPrepared } = this.#parts;
    const value = JSON.parse(text);
    switch (name) {
      case "log":
        post({ type: "log", ...value });
        break;
      case "fault":
        post({ type: "fault", ...value });
        break;
      case "stats":
        this.#noteStats(value.defined);
        post({ type: "stats", ...value });
        break;
      case "prepared":
        onPrepared(value.generation);
        break;
      case "use":
        boxes().onUse(value as ToldUse);
        break;
      case "part":
        boxes().onPart(value as ToldPart);
        break;
      case "unuse":
        boxes().onUnuse(value.box, value.use);
        break;
      case "uncaught":
        boxes().onUncaught(value.box, value.message, value.stack);
        break;
      case "malformed":
        boxes().onMalformed(value.box, value.reason);
        break;
      case "operation":
        this.#onOperation(value.call, value.name, value.args);
        break;
    }
  }

  #onPublish(text: string): void {
    const at = text.indexOf("\0");
    const topic = text.slice(0, at);
    const value = text.slice(at + 1);
    this.note(topic, value);
    this.#parts.post({ type: "publish", topic, text: value });
  }

  /** Keeps what was published, for an isolate that takes this one's place. "": it was taken back. */
  note(topic: string, value: SharedText): void {
    if (value === "") this.topics.delete(topic);
    else this.topics.set(topic, value);
  }

  #topicsOf(prefix: string): string {
    const found = [...this.topics].filter(([topic]) => topic.startsWith(prefix));
    return JSON.stringify(
      Object.fromEntries(found.map(([topic, kept]) => [topic, readText(kept)])),
    );
  }

  /**
   * Lines for a file: its path, where in `chunks` they begin, their size, and how many numbers mark when they were written. Main
   * writes them once they are flushed, in order with those of other threads.
   */
  #onLines(told: string): void {
    const [path = "", at, size, marked] = told.split("\0");
    const chunk = chunkAt(this.chunks, Number(at));
    const marks = [...chunk.marks.subarray(0, Number(marked))];
    for (let k = 0; k < marks.length; k += 2) marks[k] = steadyAt(marks[k]!);
    this.#lines.add(path, chunk.lines.subarray(0, Number(size)), marks);
  }

  /** The same as text: the path, when it was written, the text. Without text the file is created at once. */
  #onAppended(told: string): void {
    const [path = "", time = ""] = told.split("\0", 2);
    const text = told.slice(path.length + time.length + 2);
    if (text === "") this.#parts.post(linesOfNow(path, text));
    else this.#lines.add(path, Buffer.from(text), [steadyAt(Number(time)), 0]);
  }

  /** Sends all lines that have gathered. */
  flushLines(): void {
    this.#lines.flushAll();
  }

  /** The answer to a sandbox's fetch. `told`: the box, JSON and bytes (one char each), separated by NUL. */
  #onFetched(told: string): void {
    const [box = "", head = ""] = told.split("\0", 2);
    const bytes = Buffer.from(told.slice(box.length + head.length + 2), "latin1");
    this.#parts.boxes().reply(Number(box), head, bytes);
  }

  #noteStats(defined: readonly StatDefinition[]): void {
    for (const { kind, cell } of defined) {
      const end = cell + (kind === "histogram" ? HISTOGRAM_CELLS : 1);
      if (cell !== NAMED_ONLY && end > this.#statsUsed) this.#statsUsed = end;
    }
  }

  #onOperation(call: number, name: string, args: unknown): void {
    const { post, reply } = this.#parts;
    if (name === "crypto") {
      const { what, bytes } = args as { what: CryptoCall; bytes: string };
      void this.#crypto
        .run(what, Buffer.from(bytes, "latin1"))
        .then((answer) => reply(call, answer, undefined));
      return;
    }
    if (name !== "dns.resolve") {
      post({ type: "call", call, name, args });
      return;
    }
    const {
      name: host,
      family,
      resolver,
    } = args as {
      name: string;
      family?: Family;
      resolver?: DnsResolverOptions;
    };
    resolveName(host, family ?? "AUTO", resolver).then(
      (addresses) => reply(call, { addresses }, undefined),
      (error: Error) => reply(call, undefined, error.message),
    );
  }
}
