import { chownSync, mkdtempSync, rmSync } from "node:fs";
import net from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect, test } from "vitest";
import { Predecessor } from "./takeover.ts";

test.runIf(process.getuid?.() === 0)(
  "a socket in another user's folder is nobody to take over",
  async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "tsproxy-takeover-"));
    const file = path.join(folder, "a.sock");
    const server = net.createServer();
    await new Promise<void>((resolve) => server.listen(file, resolve));
    expect(await Predecessor.find(file)).toBeDefined();
    chownSync(folder, 65534, 65534);
    expect(await Predecessor.find(file)).toBeUndefined();
    server.close();
    rmSync(folder, { recursive: true });
  },
);
