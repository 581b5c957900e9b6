import type { FileSink } from "@tsproxy/sdk";
import { ascii } from "../ascii.ts";
import { ANSWER } from "./layout.ts";
import type { Outbox } from "./outbox.ts";

/** Chars in one LINES answer, which must fit the block. */
const PIECE = 8 * 1024;

/** Files that the package appends to. Lines are sent when the entry ends; core writes only to files that the config names. */
export class SandboxFiles {
  readonly #outbox: Outbox;
  readonly #texts = new Map<string, string>();
  /** A flush is due in this entry's microtasks. */
  #isFlushDue = false;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  open(path: string): FileSink {
    return {
      append: (line) => this.#append(path, String(line)),
      print: (format, source) => this.#append(path, String(format.format(source))),
      flush: () => this.#flush(),
    };
  }

  #append(path: string, line: string): void {
    this.#texts.set(path, (this.#texts.get(path) ?? "") + line);
    if (this.#isFlushDue) return;
    this.#isFlushDue = true;
    // As a microtask: it runs before the entry returns, and after hooks and settled promises have appended.
    void Promise.resolve().then(() => this.#flush());
  }

  #flush(): void {
    this.#isFlushDue = false;
    for (const [path, text] of this.#texts)
      for (let at = 0; at < text.length; at += PIECE) this.#send(path, text.slice(at, at + PIECE));
    this.#texts.clear();
  }

  #send(path: string, text: string): void {
    const json = ascii(JSON.stringify([path, text]));
    const at = this.#outbox.open(ANSWER.LINES, 0, 0, json.length);
    this.#outbox.latin1(json, at);
    this.#outbox.close();
  }
}
