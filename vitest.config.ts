import os from "node:os";
import { defineConfig } from "vitest/config";
import { hasOpenssl } from "./test/programs.ts";
import { SecondTries } from "./test/second-tries.ts";

/** Their certificates are made by openssl. */
const OF_TLS = [
  "core/sockets/certificate-extensions.test.ts",
  "test/integration/{cross-bytes,http2-reload,tls}.test.ts",
];
if (!hasOpenssl) console.warn(`there is no openssl in PATH: left out are ${OF_TLS.join(", ")}`);

export default defineConfig({
  test: {
    pool: "forks",
    // A file that waits for a proxy leaves its core to another one; vitest itself would keep one core free.
    maxWorkers: os.availableParallelism(),
    // Linear regexes, for tests of what runs in isolates without one. The first isolate of a test sets these and more (core/isolate-flags.ts).
    execArgv: [
      "--enable-experimental-regexp-engine",
      "--enable-experimental-regexp-engine-on-excessive-backtracks",
    ],
    setupFiles: ["test/patience.ts"],
    exclude: ["**/node_modules/**", ...(hasOpenssl ? [] : OF_TLS)],
    // What hangs, hangs; nothing else may fail for its time, however busy the machine is. More than PATIENCE_MS (test/integration/patience.ts), which tells what for.
    testTimeout: 300_000,
    hookTimeout: 300_000,
    teardownTimeout: 60_000,
    // A machine that stands still for a second fails one of 5,000 tests now and then. What passes at the second try only is told at the end.
    retry: 1,
    reporters: ["default", new SecondTries()],
  },
});
