import type { WireBytes } from "@tsproxy/sdk";

/** Bytes on the wire of all attempts of a request: of those that are over, and of the last, which may still grow. */
export class WireSum implements WireBytes {
  readonly #before: { readonly [name in keyof Omit<WireBytes, "saidClose">]-?: number };
  readonly #last: WireBytes;

  constructor(before: WireBytes, last: WireBytes) {
    const { wireReceived = 0, wireSent = 0, headerReceived = 0, headerSent = 0 } = before;
    const { fieldsReceived = headerReceived, fieldsSent = headerSent } = before;
    this.#before = {
      ...{ wireReceived, wireSent },
      ...{ headerReceived, headerSent, fieldsReceived, fieldsSent },
    };
    this.#last = last;
  }

  get wireReceived(): number {
    return this.#before.wireReceived + (this.#last.wireReceived ?? 0);
  }
  get wireSent(): number {
    return this.#before.wireSent + (this.#last.wireSent ?? 0);
  }
  get headerReceived(): number {
    return this.#before.headerReceived + (this.#last.headerReceived ?? 0);
  }
  get headerSent(): number {
    return this.#before.headerSent + (this.#last.headerSent ?? 0);
  }
  /** As in Envoy, an answer over HTTP/1 adds the heads of the attempts before it once more. */
  get fieldsReceived(): number {
    return this.#before.fieldsReceived + (this.#last.fieldsReceived ?? this.headerReceived);
  }
  get fieldsSent(): number {
    return this.#before.fieldsSent + (this.#last.fieldsSent ?? this.#last.headerSent ?? 0);
  }
}
