import { Chunk, latin1Decode, NoVerdict } from "@tsproxy/sdk";
import { ascii } from "../ascii.ts";
import { ANSWER, ANSWER_MAX, RECORD, VERDICT, VERDICT_TYPE } from "./layout.ts";
import type { Surroundings } from "./surroundings.ts";

/** Answers the questions of one ParkedAsk. `value` and the answer are JSON values; `bytes` belong to the callee. */
export interface Asked {
  /** Who is asked, and by which hook, where what went wrong is told. */
  readonly filter: object | undefined;
  readonly hook: string;
  ask(value: unknown, bytes: Chunk): unknown;
  /** No further questions come. */
  end(): void;
}

/** One asker by its token. */
export class AskState {
  token: number;
  readonly asked: Asked;

  constructor(token: number, asked: Asked) {
    this.token = token;
    this.asked = asked;
  }
}

/** The sandbox's half of ParkedAsk (../parked-ask.ts), for kinds that are not called for every stream or read. */
export class AskTable {
  readonly #around: Surroundings;
  readonly #uses = new Map<number, () => Asked>();

  constructor(around: Surroundings) {
    this.#around = around;
  }

  /** `make` is called once for each asker. */
  addUse(id: number, make: () => Asked): void {
    this.#uses.set(id, make);
  }

  removeUse(id: number): void {
    this.#uses.delete(id);
  }

  create(token: number, words: Int32Array, w: number): AskState | undefined {
    const make = this.#uses.get(words[w + RECORD.USE]!);
    return make === undefined ? undefined : new AskState(token, make());
  }

  run(
    state: AskState,
    words: Int32Array,
    bytes: Uint8Array,
    w: number,
    from: number,
    end: number,
  ): void {
    const { token } = state;
    const at = (w + RECORD.PAYLOAD) * 4;
    try {
      const value = JSON.parse(latin1Decode(bytes, at, at + words[w + RECORD.ARGUMENT]!));
      // A copy, since an answer may be a promise and outlive this entry.
      const answer = state.asked.ask(value, new Chunk(bytes.slice(from, end), 0, end - from));
      if (typeof (answer as PromiseLike<unknown> | undefined)?.then !== "function")
        this.#answer(token, answer);
      else
        (answer as PromiseLike<unknown>).then(
          (settled) => {
            if (state.token !== token) return;
            try {
              this.#answer(token, settled);
            } catch (error) {
              this.#fail(state, token, error);
            }
          },
          (error) => {
            if (state.token === token) this.#fail(state, token, error);
          },
        );
    } catch (error) {
      this.#fail(state, token, error);
    }
  }

  end(state: AskState): void {
    state.token = 0;
    try {
      state.asked.end();
    } catch (error) {
      this.#around.thrown(0, "the end", error);
    }
  }

  #fail({ asked }: AskState, token: number, error: unknown): void {
    const returned = error instanceof NoVerdict ? asked.filter : undefined;
    this.#around.thrown(token, asked.hook, error, returned);
    this.#put(token, VERDICT_TYPE.FAULT, "");
  }

  #answer(token: number, value: unknown): void {
    const text = ascii(JSON.stringify(value ?? null));
    if (text.length > ANSWER_MAX) throw new RangeError(`an answer of ${text.length} bytes`);
    this.#put(token, VERDICT_TYPE.GO_ON, text);
  }

  #put(token: number, type: number, text: string): void {
    const { outbox } = this.#around;
    const at = outbox.open(ANSWER.VERDICT, token, 0, VERDICT.REST * 4 + text.length);
    const w = at >> 2;
    outbox.words[w + VERDICT.TYPE] = type;
    outbox.words[w + VERDICT.HOOKS] = outbox.words[w + VERDICT.VALUE] = 0;
    outbox.words[w + VERDICT.BODY] = text.length;
    outbox.latin1(text, at + VERDICT.REST * 4);
    outbox.close();
  }
}
