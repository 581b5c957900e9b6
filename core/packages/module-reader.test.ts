import { afterEach, expect, test, vi } from "vitest";
import { threadCpuMs } from "../process/cpu-limit.ts";
import { ModuleReader } from "./module-reader.ts";
import { bundlePreludes } from "./preludes.ts";

afterEach(() => void vi.restoreAllMocks());

test("a module that waits for a CPU while it is loaded is read, though it takes longer than 5 s", async () => {
  // This thread never gets a CPU.
  vi.spyOn(process, "threadCpuUsage").mockReturnValue({ user: 0, system: 0 });
  const reader = new ModuleReader(await bundlePreludes());
  reader.warm();
  const code = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
    while (Date.now() < ${Date.now() + 5_500});
    export default defineHttpFilter({ name: "late", config: Type.Object({}), setup: () => () => ({}) });`;
  const module = { id: "late", origin: "dropped-in", code, filename: "late.js" } as const;
  expect(reader.read(module).text).toContain('"name":"late"');
  reader.dispose();
});

test("a text that is known is not answered again, and one that differs is", async () => {
  const reader = new ModuleReader(await bundlePreludes());
  const read = (field: string, hook: string, known?: string) => {
    const code = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
      export default defineHttpFilter({
        name: "v", config: Type.Object({ ${field}: Type.String() }), setup: () => () => ({ ${hook}() {} }),
      });`;
    return reader.read({ id: "v", origin: "dropped-in", code, filename: "v.js", known });
  };
  const { said, text } = read("a", "onRequestHeaders");
  expect(text).toContain('"a"');
  expect(read("a", "onRequestBody", said)).toEqual({ said, text: undefined });
  const other = read("b", "onRequestBody", said);
  expect(other.said).not.toBe(said);
  expect(other.text).toContain('"b"');
  reader.dispose();
});

test.each(["shipped", "dropped-in"] as const)(
  "no %s module waits for a new isolate in the place of one that has loaded enough",
  async (origin) => {
    const reader = new ModuleReader(await bundlePreludes());
    const read = (n: number) => {
      const code = `import { defineHttpFilter, Type } from "@tsproxy/sdk";
        export default defineHttpFilter({ name: "v${n}", config: Type.Object({}), setup: () => () => ({}) });`;
      return reader.read({ id: "v", origin, code, filename: `v${n}.js` });
    };
    const cpuMs = (f: () => unknown) => {
      const before = threadCpuMs();
      f();
      return threadCpuMs() - before;
    };
    for (let n = 0; n < 100; n++) read(n);
    const renewed = cpuMs(() => reader.renew());
    expect(cpuMs(() => read(100))).toBeLessThan(renewed / 2);
    reader.dispose();
  },
);
