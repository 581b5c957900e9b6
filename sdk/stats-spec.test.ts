import { expect, it } from "vitest";
import { defineHttpFilter, type HttpFilterFactory, stat, Type } from "./index.ts";
import { TestContext, TestStream } from "./testing/index.ts";

it("opens what a definition declares, under the filter's name, and caps labels", () => {
  const definition = defineHttpFilter({
    name: "limit",
    config: Type.Object({}),
    stats: {
      limited: stat.counter(),
      open: stat.gauge(),
      wait: stat.histogram("ms"),
      by_tenant: stat.labelled(stat.counter(), 2),
    },
    setup:
      (_config, { stat: own }) =>
      () => ({
        onRequestHeaders(headers) {
          own.limited.inc();
          own.open.set(3);
          own.wait.record(12);
          own.by_tenant.of(headers.get("x-tenant") ?? "").inc();
        },
      }),
  });
  const cx = new TestContext();
  cx.statPrefix = "http.main.";
  const make: HttpFilterFactory = cx.setup(definition, {});
  for (const tenant of ["a.b", "blue", "green", "red", "a.b"])
    new TestStream(cx, make).requestHeaders("GET", "/", { "x-tenant": tenant }).end();
  const value = (name: string) => cx.stats.value(`http.main.limit.${name}`);
  expect([value("limited"), value("open")]).toEqual([5, 3]);
  expect(cx.stats.recorded.get("http.main.limit.wait")).toEqual([12, 12, 12, 12, 12]);
  const labels = ["a_b", "blue", "other", "green"].map((label) => value(`by_tenant.${label}`));
  expect(labels).toEqual([2, 1, 2, 0]);
});

it("caps labels over workers and generations", () => {
  const definition = defineHttpFilter({
    name: "limit",
    config: Type.Object({}),
    stats: { by_key: stat.labelled(stat.counter(), 2) },
    setup:
      (_config, { stat: own }) =>
      () => ({
        onRequestHeaders: (headers) => own.by_key.of(headers.get("x-key") ?? "").inc(),
      }),
  });
  const cx = new TestContext();
  const ask = (of: TestContext, ...keys: string[]) => {
    const make: HttpFilterFactory = of.setup(definition, {});
    for (const key of keys) new TestStream(of, make).requestHeaders("GET", "/", { "x-key": key });
  };
  ask(cx, "a", "b", "c");
  ask(cx.reload(), "d", "c", "b");
  const counts = ["a", "b", "c", "d", "other"].map((key) => cx.stats.value(`limit.by_key.${key}`));
  expect(counts).toEqual([1, 2, 0, 0, 3]);
});
