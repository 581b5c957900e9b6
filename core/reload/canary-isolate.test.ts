import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { validate } from "../command/validate.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "canary-"));
afterEach(() => {
  fs.rmSync(folder, { recursive: true });
  vi.restoreAllMocks();
});

const CONFIG = `
static_resources:
  listeners:
  - address: { socket_address: { address: 127.0.0.1, port_value: 10000 } }
    filter_chains:
    - filters:
      - name: network/late
        config: {}
`;

test("a config whose setup waits for a CPU is taken, though it takes longer than 5 s", async () => {
  // This process never gets a CPU.
  vi.spyOn(process, "cpuUsage").mockReturnValue({ user: 0, system: 0 });
  const code = `import { defineNetworkFilter, Type } from "@tsproxy/sdk";
    export default defineNetworkFilter({ name: "late", terminal: true, config: Type.Object({}), setup() {
      while (Date.now() < ${Date.now() + 9_000});
      return { create: () => ({ onData() {} }) };
    } });`;
  fs.writeFileSync(path.join(folder, "late.ts"), code);
  const options = { json: false, strict: true, allowUnknown: false, trust: [] };
  const files = [{ name: "late.yaml", text: CONFIG, overlays: [] }];
  expect(await validate({ ...options, files, filters: () => [folder] })).toBe(0);
});
