import { expect, it } from "vitest";
import { makeCrypto } from "./crypto.ts";

it("draws random bytes from ChaCha20, behind those that become the next key", () => {
  const made = makeCrypto({
    seed: "\0".repeat(32),
    run: () => Promise.reject(new Error("not asked")),
  }) as typeof crypto;
  const bytes = made.getRandomValues(new Uint8Array(32));
  // RFC 8439 appendix A.1, test vector 1: the second half of the first block.
  expect(Buffer.from(bytes).toString("hex")).toBe(
    "da41597c5157488d7724e03fb8d84a376a43b8f41518a11cc387b669b2ee6586",
  );
  // A pool and more: no byte comes twice where a new key is drawn.
  const more = [...made.getRandomValues(new Uint8Array(4096))];
  expect(
    new Set(Array.from({ length: 64 }, (_, k) => more.slice(k * 64, k * 64 + 64).join())).size,
  ).toBe(64);
  expect(() => made.getRandomValues(new Float32Array(1) as never)).toThrow(TypeError);
});
