import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterEach, expect, test, vi } from "vitest";
import { validate } from "../command/validate.ts";
import { bundlePreludes } from "../packages/preludes.ts";
import type { RuntimeConfig } from "../protocol.ts";
import { CanaryIsolate } from "./canary-isolate.ts";

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "canary-"));
afterEach(() => {
  fs.rmSync(folder, { recursive: true, force: true });
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

const config: RuntimeConfig = {
  listeners: [],
  services: [{ package: "service/many", config: {} }],
  node: { id: "", cluster: "" },
};

test("many versions of a package do not cost the isolate, which takes long to build again", async () => {
  const canary = new CanaryIsolate({
    prelude: await bundlePreludes(),
    node: () => ({ id: "", cluster: "" }),
    sandboxed: "left out",
  });
  // Each leaves 8 MB behind; the setup tells how many this isolate has loaded.
  const code = (version: number) => `
    globalThis.loaded = (globalThis.loaded ?? 0) + 1;
    const large = new Array(1_000_000).fill(${version});
    export default { kind: "service", name: "many", config: { type: "object" }, setup() {
      if (${version} === 10) throw new Error("loaded " + globalThis.loaded + " of " + large[0]);
      return {};
    } };`;
  const told = Array.from({ length: 10 }, (_, k) => {
    const hash = String(k);
    const module = { package: "service/many", group: "builtin", filename: `many@${hash}`, hash };
    const modules = [{ ...module, code: code(k + 1) }];
    const generation = k + 1;
    const refusals = canary.prepare({
      generation,
      modules,
      removed: [],
      config: k === 0 ? JSON.stringify(config) : undefined,
    });
    canary.commit(generation);
    return refusals.map(({ message }) => message);
  });
  canary.dispose();
  expect(told.flat()).toEqual(["loaded 10 of 10"]);
}, 300_000);
