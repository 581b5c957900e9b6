// Hot path: one a stream, written as bytes, without a string or an object.
import { HeaderLine } from "@tsproxy/sdk";

const VALUE_AT = "x-request-id: ".length;
/** Index of each of a UUID's 16 bytes in the line; the text has hyphens between some of them. */
const PLACES = Uint8Array.of(0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34).map(
  (place) => VALUE_AT + place,
);
const HEX = Uint8Array.from("0123456789abcdef", (digit) => digit.charCodeAt(0));

/**
 * The x-request-id line of one stream: a version 4 UUID (RFC 9562 §5.4). Its 14th digit is the version, which Envoy also reads
 * as "not traced". The numbers need to be different, not secret.
 */
export class RequestIdLine extends HeaderLine {
  constructor() {
    super("x-request-id", "00000000-0000-4000-8000-000000000000");
  }

  /** Overwrites the id with a new one. */
  renew(): void {
    const bytes = this.bytes;
    for (let k = 0; k < 16; k += 4) {
      const bits = (Math.random() * 0x1_0000_0000) | 0;
      this.#write(bytes, k, bits);
      this.#write(bytes, k + 1, bits >> 8);
      this.#write(bytes, k + 2, bits >> 16);
      this.#write(bytes, k + 3, bits >> 24);
    }
    bytes[VALUE_AT + 14] = 52; // "4", the version
    bytes[VALUE_AT + 19] = HEX[8 | (bytes[VALUE_AT + 19]! & 3)]!; // the variant
    this.refresh();
  }

  #write(bytes: Uint8Array, index: number, byte: number): void {
    const at = PLACES[index]!;
    bytes[at] = HEX[(byte >> 4) & 15]!;
    bytes[at + 1] = HEX[byte & 15]!;
  }
}
