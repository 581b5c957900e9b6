// Hot path: one a stream. About 60 ns, as bytes, with no string and no object made.
import { HeaderLine } from "@tsproxy/sdk";

const VALUE_AT = "x-request-id: ".length;
/** Where the digits of a UUID begin that no hyphen interrupts, with their number. */
const RUNS = [0, 8, 9, 4, 14, 4, 19, 4, 24, 12] as const;
const HEX = new Uint8Array(16);
for (let k = 0; k < 16; k++) HEX[k] = k.toString(16).charCodeAt(0);

/**
 * The x-request-id line of one stream: a version 4 UUID (RFC 9562 §5.4). Its 14th digit is the version, which Envoy also reads
 * as "not traced". The numbers need to be different, not secret.
 */
export class RequestIdLine extends HeaderLine {
  constructor() {
    super("x-request-id", "00000000-0000-4000-8000-000000000000");
  }

  /** A new id over the one before. */
  renew(): void {
    const bytes = this.bytes;
    let bits = 0;
    let left = 0;
    for (let r = 0; r < RUNS.length; r += 2) {
      const at = VALUE_AT + RUNS[r]!;
      const end = at + RUNS[r + 1]!;
      for (let k = at; k < end; k++) {
        if (left === 0) {
          bits = (Math.random() * 0x1_0000_0000) | 0;
          left = 8;
        }
        bytes[k] = HEX[bits & 15]!;
        bits >>>= 4;
        left--;
      }
    }
    bytes[VALUE_AT + 14] = 52; // "4", the version
    bytes[VALUE_AT + 19] = HEX[8 | ((Math.random() * 4) | 0)]!; // the variant
    this.refresh();
  }
}
