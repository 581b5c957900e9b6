import { defineConfig } from "vitest/config";

// The proxy's own V8 flags: without --no-use-osr and --no-maglev an allocation loop in an isolate escapes every limit.
export default defineConfig({
  test: {
    pool: "forks",
    execArgv: [
      "--no-node-snapshot",
      "--no-maglev",
      "--no-use-osr",
      "--enable-experimental-regexp-engine",
      "--enable-experimental-regexp-engine-on-excessive-backtracks",
    ],
    exclude: ["**/node_modules/**"],
    // Integration tests start processes; a machine that is busy with something else takes its time for that.
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
