import { expect, test } from "vitest";
import { logTo } from "./log.ts";
import { lineFormat } from "./log-format.ts";

const time = new Date(2026, 1, 3, 4, 5, 6, 78).toISOString();
const line = JSON.stringify({
  level: "warn",
  time,
  filter: "http/router",
  msg: "no\nhost",
  thread: "worker 1",
});

test("writes lines in Envoy's default format", () => {
  const form = lineFormat("[%Y-%m-%d %T.%e][%t][%l][%n] [%g:%#] %v", false);
  expect(form(line)).toBe(
    '[2026-02-03 04:05:06.078][worker 1][warning][http/router] [-:-] no\nhost thread="worker 1"\n',
  );
});

test("escapes line ends where it is asked to, and keeps what it does not know", () => {
  expect(lineFormat("%_ %Q %%", false)(line)).toBe('no\\nhost thread="worker 1" %Q %\n');
  expect(lineFormat("%v", true)(line)).toBe('no\\nhost thread="worker 1"\n');
});

test("a component may say more or less than the rest", () => {
  const lines: string[] = [];
  const log = logTo(
    { write: (text) => void lines.push(JSON.parse(text).msg) },
    { level: "info", components: { router: "debug", admin: "error" }, escaped: false },
  );
  log.debug("core, debug");
  log.info("core, info");
  log.debug({ filter: "http/router" }, "router, debug");
  log.info({ filter: "http/admin" }, "admin, info");
  expect(lines).toEqual(["core, info", "router, debug"]);
});
