import { latin1Decode } from "@tsproxy/sdk";
import type { CryptoAnswer, CryptoCall } from "../crypto.ts";
import { PART_SIZE } from "./layout.ts";
import type { Running } from "./running.ts";

/** Most crypto calls of one sandbox at a time; core accepts no more, further ones wait here. */
export const CRYPTO_CALLS_MAX = 64;

/** From the sandbox to core: a call's bytes in `data` messages, then the call with its last bytes. */
export type CryptoMessage =
  | { readonly call: number; readonly op: "data" }
  | { readonly call: number; readonly op: "run"; readonly what: CryptoCall };
/** From core to the sandbox: the answer's bytes in `data` messages, then the answer with its last bytes. */
export type CryptoReply =
  | { readonly to: "crypto"; readonly call: number; readonly op: "data" }
  | {
      readonly to: "crypto";
      readonly call: number;
      readonly op: "end";
      readonly answer: CryptoAnswer;
    }
  /** The call's answer found no room. */
  | { readonly to: "crypto"; readonly call: number; readonly op: "lost" };

const LOST: CryptoAnswer = {
  error: "more answers at once than the sandbox has room for",
  name: "OperationError",
};

interface Waiting {
  bytes: string;
  /** The account that has called. */
  readonly use: number;
  readonly part: number;
  resolve(answer: CryptoAnswer): void;
}

/** The sandbox's half of `crypto.subtle`: calls go to core with their bytes, answers come in a later entry. */
export class CryptoCalls {
  readonly #send: (head: CryptoMessage, bytes: Uint8Array) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queue: (() => void)[] = [];
  readonly #running: Running;
  #next: number;

  constructor(
    send: (head: CryptoMessage, bytes: Uint8Array) => void,
    running: Running,
    firstCall: number,
  ) {
    this.#send = send;
    this.#running = running;
    this.#next = firstCall;
  }

  run(what: CryptoCall, data: Uint8Array): Promise<CryptoAnswer> {
    // A call that must wait copies its bytes, which may be lent.
    const bytes = this.#waiting.size < CRYPTO_CALLS_MAX ? data : data.slice();
    return new Promise((resolve) => {
      const { use, part } = this.#running;
      const begin = (): void => this.#begin(what, bytes, { bytes: "", use, part, resolve });
      if (this.#waiting.size < CRYPTO_CALLS_MAX) begin();
      else this.#queue.push(begin);
    });
  }

  #begin(what: CryptoCall, data: Uint8Array, waiting: Waiting): void {
    const call = this.#next++;
    let at = 0;
    for (; data.length - at > PART_SIZE; at += PART_SIZE)
      this.#send({ call, op: "data" }, data.subarray(at, at + PART_SIZE));
    this.#send({ call, op: "run", what }, data.subarray(at));
    this.#waiting.set(call, waiting);
  }

  onReply(reply: CryptoReply, bytes: Uint8Array): void {
    const waiting = this.#waiting.get(reply.call);
    if (waiting === undefined) return;
    waiting.bytes += latin1Decode(bytes, 0, bytes.length);
    if (reply.op === "data") return;
    this.#waiting.delete(reply.call);
    this.#running.enter(waiting.use, waiting.part);
    const answer = reply.op === "lost" ? LOST : reply.answer;
    waiting.resolve("bytes" in answer ? { bytes: waiting.bytes } : answer);
    this.#queue.shift()?.();
  }
}
