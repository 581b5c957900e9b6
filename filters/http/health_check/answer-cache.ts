import type { CellSpec } from "@tsproxy/sdk";

/** The upstream's last answer to a check, shared by all workers. It is forgotten when the current window of time is over. */
export interface AnswerCache {
  get(): { readonly status: number; readonly degraded: boolean } | undefined;
  set(status: number, degraded: boolean): void;
}

/** One word of 32 bits: 20 of the window's number, one for degraded, ten of the status. */
export function answerCache(windowMs: number): CellSpec<AnswerCache> {
  return {
    kind: "answers",
    bytes: 8,
    open(memory, at) {
      const { words } = memory;
      const window = (): number => (Math.floor(memory.now() / windowMs) + 1) & 0xfffff;
      return {
        get() {
          const word = words[at >> 2]!;
          if (word >>> 11 !== window()) return undefined;
          return { status: word & 0x3ff, degraded: (word & 0x400) !== 0 };
        },
        set(status, degraded) {
          words[at >> 2] = (window() << 11) | (degraded ? 0x400 : 0) | (status & 0x3ff);
        },
      };
    },
  };
}
