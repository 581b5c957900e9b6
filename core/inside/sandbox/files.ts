import type { FileSink } from "@tsproxy/sdk";
import { ascii } from "../parked-facts.ts";
import { ANSWER } from "./layout.ts";
import type { Outbox } from "./outbox.ts";

/** Chars that go out at once; a note must fit the sandbox's block. */
const PIECE = 8 * 1024;

/** Files that the package appends to. Core writes what has gathered when the crossing ends, to files that its config names. */
export class SandboxFiles {
  readonly #outbox: Outbox;
  readonly #texts = new Map<string, string>();
  #isAsked = false;

  constructor(outbox: Outbox) {
    this.#outbox = outbox;
  }

  open(path: string): FileSink {
    return { append: (line) => this.#append(path, String(line)), flush: () => this.#flush() };
  }

  #append(path: string, line: string): void {
    this.#texts.set(path, (this.#texts.get(path) ?? "") + line);
    if (this.#isAsked) return;
    this.#isAsked = true;
    // Before the crossing returns, whoever appended: a hook, or a promise that settled after it.
    void Promise.resolve().then(() => this.#flush());
  }

  #flush(): void {
    this.#isAsked = false;
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
