import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { eventually } from "./client.ts";
import { direct, http, listener } from "./config.ts";
import { CLI } from "./proxy.ts";

test("the log goes to a file, and to a new one after SIGUSR1", async () => {
  const folder = mkdtempSync(path.join(os.tmpdir(), "tsproxy-log-"));
  const [config, log] = [path.join(folder, "a.json"), path.join(folder, "a.log")];
  const listeners = [listener("main", http([direct("/", "a")]))];
  writeFileSync(config, JSON.stringify({ static_resources: { listeners } }));
  const args = ["-c", config, "--concurrency", "1", "--log-path", log, "--log-format", "%l: %v"];
  const proxy = spawn(process.execPath, [CLI, ...args], { stdio: "ignore" });
  const exited = new Promise((resolve) => proxy.on("exit", resolve));
  const text = () => (existsSync(log) ? readFileSync(log, "utf8") : "");
  try {
    await eventually(text, (said) => /^info: watching /m.test(said), "the proxy serves");
    renameSync(log, `${log}.1`);
    proxy.kill("SIGUSR1");
    await eventually(
      () => existsSync(log),
      (is) => is,
      "the log is opened anew",
    );
  } finally {
    proxy.kill("SIGTERM");
    await exited;
    expect(text()).toMatch(/^info: draining$/m);
    rmSync(folder, { recursive: true });
  }
});
