import { Crypto } from "../crypto.ts";
import { CRYPTO_DATA_MAX, type CryptoCall } from "../inside/crypto.ts";
import {
  CRYPTO_CALLS_MAX,
  type CryptoMessage,
  type CryptoReply,
} from "../inside/sandbox/crypto-calls.ts";
import type { FetchReply } from "../inside/sandbox/fetches.ts";
import { ANSWER, KIND, PART_SIZE, RECORD } from "../inside/sandbox/layout.ts";

/** Most bytes of incomplete calls that one sandbox may have sent. */
const GATHERED_MAX = 8 * CRYPTO_DATA_MAX;
/** Most calls of one sandbox that may run at once. */
const LOST_MAX = 16_384;
const NOTHING = Buffer.alloc(0);

export interface CallsOwner {
  /** JSON of a FetchMessage and its bytes. */
  onFetch(head: string, bytes: Buffer): void;
  /** Sends an answer into the sandbox with its next crossing: JSON in ASCII and bytes, together at most 64 KiB. */
  reply(head: string, bytes: Buffer): void;
}

interface Gathered {
  readonly parts: Buffer[];
  size: number;
}

/** Calls of one sandboxed isolate that core answers later: crypto, fetches. Their contents are not trusted. */
export class Calls {
  readonly #owner: CallsOwner;
  readonly #crypto = new Crypto();
  readonly #gathered = new Map<number, Gathered>();
  #gatheredBytes = 0;
  #running = 0;
  #over = false;
  readonly #lost = new Set<string>();
  #hasFetched = false;

  constructor(owner: CallsOwner) {
    this.#owner = owner;
  }

  /** `head`: JSON in ASCII. */
  onCall(kind: number, head: string, bytes: Buffer): void {
    if (kind === ANSWER.FETCH) {
      this.#hasFetched = true;
      this.#owner.onFetch(head, bytes);
    } else if (kind === ANSWER.CRYPTO) this.#onCrypto(head, bytes);
  }

  /** An answer found no room: tells the caller so, once. Undefined: that was done already. */
  lost(head: string): string | undefined {
    const { to, call } = JSON.parse(head) as FetchReply | CryptoReply;
    const key = `${to} ${call}`;
    if (this.#lost.has(key)) return undefined;
    if (this.#lost.size === LOST_MAX) this.#lost.clear();
    this.#lost.add(key);
    return JSON.stringify({ to, call, op: "lost" });
  }

  /** The isolate has ended: answers of calls that still run are dropped. True: fetches may be among them. */
  end(): boolean {
    this.#over = true;
    this.#gathered.clear();
    return this.#hasFetched;
  }

  #onCrypto(head: string, bytes: Buffer): void {
    let message: CryptoMessage;
    try {
      message = JSON.parse(head);
    } catch {
      return;
    }
    const { call } = message;
    const gathered = this.#gathered.get(call) ?? { parts: [], size: 0 };
    if (gathered.size + bytes.length > CRYPTO_DATA_MAX) return;
    if (message.op === "data") {
      if (this.#gatheredBytes + bytes.length > GATHERED_MAX) return;
      gathered.parts.push(bytes);
      gathered.size += bytes.length;
      this.#gatheredBytes += bytes.length;
      this.#gathered.set(call, gathered);
      return;
    }
    this.#gathered.delete(call);
    this.#gatheredBytes -= gathered.size;
    if (this.#running >= CRYPTO_CALLS_MAX) return;
    void this.#run(call, message.what, Buffer.concat([...gathered.parts, bytes]));
  }

  async #run(call: number, what: CryptoCall, data: Buffer): Promise<void> {
    this.#running++;
    const answer = await this.#crypto.run(what, data);
    this.#running--;
    if (this.#over) return;
    const bytes = "bytes" in answer ? Buffer.from(answer.bytes, "latin1") : NOTHING;
    const rest = "bytes" in answer ? { bytes: "" } : answer;
    let at = 0;
    for (; bytes.length - at > PART_SIZE; at += PART_SIZE)
      this.#reply({ to: "crypto", call, op: "data" }, bytes.subarray(at, at + PART_SIZE));
    this.#reply({ to: "crypto", call, op: "end", answer: rest }, bytes.subarray(at));
  }

  #reply(reply: CryptoReply, bytes: Buffer): void {
    this.#owner.reply(JSON.stringify(reply), bytes);
  }
}

/** A record that belongs to no stream (KIND.REPLY): JSON in ASCII, and bytes. */
export function replyRecord(head: string, bytes: Buffer): Buffer {
  const bytesAt = (RECORD.PAYLOAD * 4 + head.length + 7) & ~7;
  const record = Buffer.alloc(bytesAt + ((bytes.length + 7) & ~7));
  record.writeInt32LE(KIND.REPLY, RECORD.KIND * 4);
  record.writeInt32LE(bytes.length, RECORD.RANGE_SIZE * 4);
  record.writeInt32LE(head.length, RECORD.ARGUMENT * 4);
  record.write(head, RECORD.PAYLOAD * 4, "latin1");
  record.set(bytes, bytesAt);
  return record;
}
