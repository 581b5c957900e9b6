import { defineConfig } from "vitest/config";

/** Tests run with the proxy's own V8 flags: without --no-maglev an allocation loop is not contained. */
export const V8_FLAGS = [
  "--no-node-snapshot",
  "--no-maglev",
  "--enable-experimental-regexp-engine",
  "--enable-experimental-regexp-engine-on-excessive-backtracks",
];

export default defineConfig({
  test: {
    pool: "forks",
    execArgv: V8_FLAGS,
    include: ["{sdk,core,filters,test,examples}/**/*.test.ts"],
    testTimeout: 30_000,
    hookTimeout: 60_000,
  },
});
