import { latin1Decode } from "@tsproxy/sdk";
import type { CryptoAnswer, CryptoCall } from "../crypto.ts";
import { PART_SIZE } from "./layout.ts";

/** Calls of one sandbox that may be under way; core takes no more. */
export const CRYPTO_CALLS_MAX = 64;

/** Out of a sandbox: bytes of a call, then the call itself. */
export type CryptoMessage =
  | { readonly call: number; readonly op: "data" }
  | { readonly call: number; readonly op: "run"; readonly what: CryptoCall };
/** Back: bytes of the answer, then the rest of it. */
export type CryptoReply =
  | { readonly to: "crypto"; readonly call: number; readonly op: "data" }
  | {
      readonly to: "crypto";
      readonly call: number;
      readonly op: "end";
      readonly answer: CryptoAnswer;
    }
  /** Its answer found no room. */
  | { readonly to: "crypto"; readonly call: number; readonly op: "lost" };

const LOST: CryptoAnswer = {
  error: "more answers at once than the sandbox has room for",
  name: "OperationError",
};

interface Waiting {
  bytes: string;
  resolve(answer: CryptoAnswer): void;
}

/** The sandbox's half of `crypto.subtle`: calls cross with their bytes, answers come in a later crossing. */
export class CryptoCalls {
  readonly #send: (head: CryptoMessage, bytes: Uint8Array) => void;
  readonly #waiting = new Map<number, Waiting>();
  readonly #queue: (() => void)[] = [];
  #next: number;

  constructor(send: (head: CryptoMessage, bytes: Uint8Array) => void, firstCall: number) {
    this.#send = send;
    this.#next = firstCall;
  }

  run(what: CryptoCall, data: Uint8Array): Promise<CryptoAnswer> {
    // It may be lent, and this call may have to wait.
    const bytes = this.#waiting.size < CRYPTO_CALLS_MAX ? data : data.slice();
    return new Promise((resolve) => {
      const begin = (): void => this.#begin(what, bytes, resolve);
      if (this.#waiting.size < CRYPTO_CALLS_MAX) begin();
      else this.#queue.push(begin);
    });
  }

  #begin(what: CryptoCall, data: Uint8Array, resolve: Waiting["resolve"]): void {
    const call = this.#next++;
    let at = 0;
    for (; data.length - at > PART_SIZE; at += PART_SIZE)
      this.#send({ call, op: "data" }, data.subarray(at, at + PART_SIZE));
    this.#send({ call, op: "run", what }, data.subarray(at));
    this.#waiting.set(call, { bytes: "", resolve });
  }

  onReply(reply: CryptoReply, bytes: Uint8Array): void {
    const waiting = this.#waiting.get(reply.call);
    if (waiting === undefined) return;
    waiting.bytes += latin1Decode(bytes, 0, bytes.length);
    if (reply.op === "data") return;
    this.#waiting.delete(reply.call);
    const answer = reply.op === "lost" ? LOST : reply.answer;
    waiting.resolve("bytes" in answer ? { bytes: waiting.bytes } : answer);
    this.#queue.shift()?.();
  }
}
