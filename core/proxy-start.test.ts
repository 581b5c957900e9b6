import { once } from "node:events";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { expect, it } from "vitest";
import { startProcess } from "./proxy-start.ts";

const OPTIONS = {
  configFile: "",
  configText: "static_resources: {}",
  overlays: [],
  concurrency: 1,
  log: { level: "off", components: {}, escaped: false },
  serviceCluster: "",
  serviceNode: "",
  filters: [],
  trusted: [],
  strict: false,
  allowUnknown: false,
  drainTimeMs: 1000,
  drainImmediately: true,
  parentShutdownMs: 1000,
  adminAddressPath: "",
  fileFlush: { ms: 1000, bytes: 64 * 1024 },
  addressFamily: "v4",
  takeover: false,
  controlSocket: "",
  controlSocketMode: 0o600,
  quarantined: [],
  standby: false,
};

it.each([
  ["before it has its arguments", []],
  ["while it loads its modules", [JSON.stringify(OPTIONS)]],
])(
  "ends with its supervisor %s",
  async (_when, args) => {
    const child = startProcess({
      args,
      execPath: process.execPath,
      execArgv: process.execArgv,
      stdio: ["ignore", "ignore", "ignore", "ipc"],
    });
    child.disconnect();
    expect(await once(child, "exit")).toEqual([1, null]);
  },
  300_000,
);

it("sets esbuild's collector for what a process starts, if nobody else has", async () => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "start-"));
  const main = path.join(folder, "tell.cjs");
  fs.writeFileSync(main, "process.send(process.env.GOGC)");
  const told = async () => {
    const { execPath, execArgv } = process;
    const [value] = await once(startProcess({ main, args: [], execPath, execArgv }), "message");
    return value;
  };
  try {
    expect(await told()).toBe("400");
    process.env.GOGC = "50";
    expect(await told()).toBe("50");
  } finally {
    delete process.env.GOGC;
    fs.rmSync(folder, { recursive: true });
  }
}, 300_000);
