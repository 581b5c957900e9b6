import { spawnSync } from "node:child_process";
import { chmodSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, expect, it } from "vitest";
import { fileError } from "./file-error.ts";

const folder = mkdtempSync(path.join(tmpdir(), "tsproxy-file-error-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function why(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch (error) {
    return fileError(error);
  }
}

it("says in plain words why a file cannot be read", () => {
  const file = path.join(folder, "a.yaml");
  writeFileSync(file, "a: 1\n");
  const loop = path.join(folder, "loop.yaml");
  symlinkSync("loop.yaml", loop);
  expect(why(path.join(folder, "none.yaml"))).toBe("no such file or directory");
  expect(why(folder)).toBe("it is a directory; name a file in it");
  expect(why(path.join(file, "b.yaml"))).toBe("what its path takes for a directory is a file");
  expect(why(loop)).toBe("it is a link that leads back to itself");
  expect(why(path.join(folder, "a".repeat(300)))).toBe("its path is longer than the system allows");
});

// Only root can be another user; none has this number, so it has no name.
it.runIf(process.getuid?.() === 0)("names a user who has a number only by that", () => {
  const script = path.join(folder, "read.mjs");
  const secret = path.join(folder, "secret");
  writeFileSync(secret, "");
  chmodSync(secret, 0o600);
  chmodSync(folder, 0o755);
  const lib = path.join(import.meta.dirname, "file-error.ts");
  writeFileSync(
    script,
    `import { readFileSync } from "node:fs";
    const { fileError } = await import(${JSON.stringify(lib)});
    process.setuid(54321);
    try { readFileSync(${JSON.stringify(secret)}); } catch (error) { console.log(fileError(error)); }`,
  );
  const { stdout } = spawnSync(process.execPath, [script], { encoding: "utf8" });
  expect(stdout).toMatch(/^permission denied for user 54321; change the mode of the file/);
});

const cli = path.join(import.meta.dirname, "bin/tsproxy.js");
const nameless = { uid: 54321, gid: 54321, encoding: "utf8" as const };
/** Whether such a user may read this checkout. */
const mayRead = process.getuid?.() === 0 && spawnSync("test", ["-r", cli], nameless).status === 0;

it.runIf(mayRead)("lets a user who has a number only run the proxy", () => {
  const file = path.join(folder, "empty.yaml");
  writeFileSync(file, "");
  chmodSync(folder, 0o755);
  const { status, stderr } = spawnSync(process.execPath, [cli, "run", "-c", file], nameless);
  expect([status, stderr]).toEqual([
    1,
    expect.stringContaining("empty.yaml:1:1: the file is empty"),
  ]);
});
