import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import path from "node:path";
import { freePort } from "../../core/command/free-port.ts";
import { bootstrap, cluster, http, listener, route, unlimited } from "../integration/config.ts";
import { Proxy, ROOT } from "../integration/proxy.ts";

/** Suites that others made lie beside the project, or where this says. */
const SUITES = process.env["TSPROXY_SUITES"] ?? path.join(ROOT, "../shared");

export type Outcome = "passed" | "failed" | "skipped";

/** A file of the suites; undefined, with a word why, if it is not there. */
export function suite(file: string): string | undefined {
  const found = path.join(SUITES, file);
  if (existsSync(found)) return found;
  console.log(`skipped: there is no ${found}; TSPROXY_SUITES may name another place`);
  return undefined;
}

/** Runs a script of the suites with the Node that runs this, from the project's root. Its output is ours. */
export function runScript(script: string, args: readonly string[]): Promise<Outcome> {
  return runCommand(process.execPath, [script, ...args]);
}

export function runCommand(
  command: string,
  args: readonly string[],
  more: Readonly<Record<string, string>> = {},
): Promise<Outcome> {
  const bin = path.join(ROOT, "node_modules/.bin");
  const env = { ...process.env, ...more, PATH: `${bin}${path.delimiter}${process.env["PATH"]}` };
  const child = spawn(command, args, { cwd: ROOT, env, stdio: "inherit" });
  return new Promise((resolve) => {
    child.on("exit", (code) => resolve(code === 0 ? "passed" : "failed"));
  });
}

/** A proxy that sends every request to one port, where the script itself will listen. */
export async function withForwarder(
  env: Readonly<Record<string, string>>,
  run: (proxy: string, origin: string) => Promise<Outcome>,
): Promise<Outcome> {
  const origin = await freePort();
  const proxy = await Proxy.start({
    config: bootstrap(
      [
        listener(
          "main",
          http([route("/", "origin", { timeout: "0s" })], {
            http_protocol_options: { accept_http_10: true },
          }),
        ),
      ],
      [cluster("origin", [origin], unlimited)],
    ),
    env,
  });
  try {
    return await run(`127.0.0.1:${proxy.port("main")}`, String(origin));
  } finally {
    await proxy.stop();
  }
}

/** Events, commands, segments, slots: every path of overflow is taken all the time. */
export const TINY_RING = { TSPROXY_RING: "8,8,2,2" };
