import { expect, it } from "vitest";
import { logTo } from "./log.ts";
import { LogLevels, unknownComponents } from "./log-levels.ts";

function start(components = {}) {
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(JSON.parse(line).msg) };
  const options = { level: "info" as const, components, escaped: false };
  const log = logTo(stream, options);
  const levels = new LogLevels(log, options);
  const say = (filter?: string) => {
    log.debug({ filter }, `${filter} debug`);
    log.error({ filter }, `${filter} error`);
    return lines.splice(0);
  };
  return { levels, say };
}

it("changes one logger and leaves the others", () => {
  const { levels, say } = start();
  expect(say("http/router")).toEqual(["http/router error"]);
  levels.set("http/router", "debug");
  expect(say("http/router")).toEqual(["http/router debug", "http/router error"]);
  expect([...say(), ...say("http/other")]).toEqual(["undefined error", "http/other error"]);
  levels.set("main", "off");
  expect(say()).toEqual([]);
});

it("changes all of them, those that had a level of their own too", () => {
  const { levels, say } = start({ router: "debug" });
  expect(levels.level("http/router")).toBe("debug");
  levels.set("", "off");
  expect([...say("http/router"), ...say()]).toEqual([]);
  expect(levels.level("http/router")).toBe("off");
});

it("knows loggers by their last part, their kind and Envoy's names, the most exact first", () => {
  const { say } = start({ upstream: "debug", router: "debug", http: "off", config: "debug" });
  expect(say("service/cluster_manager")).toHaveLength(2);
  expect(say("http/router")).toHaveLength(2);
  expect(say("http/fault")).toEqual([]);
  expect(say("network/http_connection_manager")).toEqual([]);
  expect(say()).toHaveLength(2);
  expect(say("network/tcp_proxy")).toEqual(["network/tcp_proxy error"]);
});

it("knows a logger by its package, by Envoy's name for it, and as a logger that only Envoy has", () => {
  const components = { router: "debug", upstream: "debug", quic: "info", main: "info" } as const;
  const packages = ["http/router", "service/cluster_manager"];
  expect(unknownComponents(components, packages)).toEqual([]);
  expect(unknownComponents({ routr: "info" }, packages)[0]?.message).toBe(
    '--component-log-level: no logger is called "routr"; did you mean "router"?',
  );
});
