import { describe, expect, it } from "vitest";
import { ByteQueue } from "./byte-queue.ts";

const bytesOf = (from: number, size: number): Uint8Array =>
  Uint8Array.from({ length: size }, (_, k) => (from + k) & 255);

describe("a queue of bytes", () => {
  it("gives back what it was given, however it was cut, while pieces are taken out in between", () => {
    for (const size of [1, 2, 7, 255, 256, 4095, 4096, 20_000]) {
      const queue = new ByteQueue();
      const out: number[] = [];
      let sent = 0;
      for (let k = 0; k < 40; k++, sent += size) {
        const lent = bytesOf(sent, size + 2);
        queue.push(lent, 0, size);
        lent.fill(0);
        if (k % 7 === 3) out.push(...(queue.shift() ?? []));
      }
      expect(queue.size).toBe(sent - out.length);
      const left = queue.join();
      for (let piece = queue.shift(); piece !== undefined; piece = queue.shift())
        out.push(...piece);
      expect(Buffer.from(out).equals(bytesOf(0, sent)), `pieces of ${size}`).toBe(true);
      expect(Buffer.from(left).equals(Buffer.from(out.slice(-left.length)))).toBe(true);
      expect(queue.size).toBe(0);
    }
  });

  it("puts single bytes together", () => {
    const queue = new ByteQueue();
    for (let k = 0; k < 100_000; k++) queue.push(bytesOf(k, 1), 0, 1);
    expect(queue.pieces.length).toBeLessThan(20);
  });
});
