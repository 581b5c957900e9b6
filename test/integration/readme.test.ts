import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { get } from "./client.ts";
import { DevSession, portOf } from "./dev-session.ts";
import { CLI, Proxy, ROOT } from "./proxy.ts";

const readme = readFileSync(path.join(ROOT, "README.md"), "utf8");
const config = /```yaml\n([^]*?)```/.exec(readme)![1]!;

test("the README's filter is made, and the config serves with it", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "tsproxy-readme-"));
  try {
    const made = spawnSync(process.execPath, [CLI, "filter", "new", "hello"], { cwd: folder });
    expect(made.status, String(made.stderr)).toBe(0);
    const files = ["config.ts", "filter.ts", "filter.test.ts", "README.md", "package.json"];
    for (const file of files)
      expect(existsSync(path.join(folder, "filters/hello", file)), file).toBe(true);
    const filters = Object.fromEntries(
      ["config.ts", "filter.ts"].map((file) => [
        `filters/hello/${file}`,
        readFileSync(path.join(folder, "filters/hello", file), "utf8"),
      ]),
    );
    const proxy = await Proxy.start({
      config: config.replace("port_value: 8400", "port_value: 0"),
      files: filters,
    });
    try {
      const { headers, text } = await get(proxy.port("main"), "/");
      expect(text).toBe("hello\n");
      expect(headers["x-hello"]).toBeDefined();
    } finally {
      await proxy.stop();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test("the README's rate limiter is saved, limits, and shows what the next save changes", async () => {
  const limiter = /```ts\n([^]*?)```/.exec(readme)![1]!;
  const session = new DevSession();
  try {
    mkdirSync(path.join(session.dir, "filters"));
    session.write("filters/ratelimit.ts", limiter);
    // One worker, so that the request that was answered last is the one that is sent again.
    const port = portOf(await session.start("--concurrency", "1"), "http");
    for (const status of [200, 200, 200, 429]) {
      expect((await get(port, "/")).status).toBe(status);
      expect(await session.next("request")).toMatchObject({ status });
    }
    session.write("filters/ratelimit.ts", limiter.replace("slow down", "not so fast"));
    expect(await session.next("reloaded")).toMatchObject({
      changed: ["http/ratelimit"],
      replayed: [
        { verdict: "differs", after: 429, body: [{ text: "slow down" }, { text: "not so fast" }] },
      ],
    });
  } finally {
    await session.end();
  }
});

test("every command of the README is run by a test", () => {
  const commands = [...readme.matchAll(/^ {4}((?:npm|npx|curl|node) .*)$/gm)].map(
    ([, text]) => text,
  );
  expect(commands).toEqual([
    // .ci/run, and examples.test.ts for what npm start names.
    "npm install && npm start",
    "curl http://localhost:8000/service/1",
    "curl http://localhost:8001/clusters",
    "npm install && npm test",
    // install.test.ts.
    "npm install ./tsproxy-0.1.0.tgz",
    "npx tsproxy init && npx tsproxy run -c tsproxy.yaml",
    // Here.
    "npx tsproxy filter new hello",
    "npx tsproxy filter dev",
  ]);
});

test("what the README links to is there", () => {
  for (const [, target] of readme.matchAll(/\]\(([^)#]+)\)/g))
    expect(existsSync(path.join(ROOT, target!)), target).toBe(true);
});
