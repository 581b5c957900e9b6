import { expect, test } from "vitest";
import { eventually, get } from "./client.ts";
import { bootstrap, direct, http, listener } from "./config.ts";
import { Proxy } from "./proxy.ts";

/** A filter among the shipped ones, whose setup runs `line`, and which marks each answer. */
const marking = (mark: string, line = "") => `import { defineHttpFilter, Type } from "@tsproxy/sdk";
export default defineHttpFilter({
  name: "mark",
  config: Type.Object({}),
  setup() {
    ${line}
    return () => ({ onResponseHeaders: (headers) => headers.set("x-mark", "${mark}") });
  },
});
`;

async function withMark(use: (proxy: Proxy) => Promise<void>): Promise<void> {
  const proxy = await Proxy.start({
    concurrency: 1,
    args: ["--trust", "mark"],
    files: { "filters/mark.ts": marking("first") },
    config: bootstrap([listener("main", http([direct("/", "yes")], {}, [{ name: "mark" }]))]),
  });
  try {
    await use(proxy);
  } finally {
    await proxy.stop();
  }
}

const mark = async (proxy: Proxy) => (await get(proxy.port("main"), "/")).headers["x-mark"];

test("admin and traffic go on while a setup that never ends is tried, and the next save serves", async () => {
  await withMark(async (proxy) => {
    let answers = 0;
    let refused = false;
    const refusal = proxy.line(/mark\.ts:6:5: setup did not return/);
    void refusal.then(() => (refused = true));
    proxy.write("filters/mark.ts", marking("second", "while (true) {}"));
    while (!refused) {
      // What admin asks of main.
      expect(await proxy.admin("/server_info")).toContain("LIVE");
      expect(await mark(proxy)).toBe("first");
      answers++;
    }
    // The limit of a setup is 5 s.
    expect(answers).toBeGreaterThan(5);
    proxy.write("filters/mark.ts", marking("third"));
    await eventually(
      () => mark(proxy),
      (seen) => seen === "third",
      "an answer by the next save",
    );
  });
});

test("a setup that ends its process when it is tried is refused, nothing that serves is lost, and the next save serves", async () => {
  await withMark(async (proxy) => {
    // V8 has no memory for the list, and ends the process.
    const deadly = 'if ("x".repeat(5e8).split("").length === 7) return;';
    proxy.write("filters/mark.ts", marking("second", deadly));
    await proxy.line(/http\/mark: ended the process that tried it/);
    expect(await mark(proxy)).toBe("first");
    proxy.write("filters/mark.ts", marking("third"));
    await eventually(
      () => mark(proxy),
      (seen) => seen === "third",
      "an answer by the next save",
    );
    expect(proxy.output).not.toContain("starting another");
  });
});
