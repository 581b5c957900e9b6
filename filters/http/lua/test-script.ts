import {
  TestContext,
  TestStream,
  type TestStreamOptions,
  withDefaults,
} from "@tsproxy/sdk/testing";
import { Config, RouteConfig } from "./config.ts";
import lua from "./filter.ts";

/** A script, with the modules that it may require. */
export const source = (text: string, modules: object = {}) => ({ text, modules });

/** The filter with that config, and a maker of streams through it. */
export function harness(
  config: object,
  options: TestStreamOptions & { readonly routeConfig?: object } = {},
) {
  const cx = new TestContext();
  const factory = cx.setup(lua, withDefaults(Config, config));
  const { routeConfig, ...rest } = options;
  const routeConfigs = routeConfig === undefined ? [] : [withDefaults(RouteConfig, routeConfig)];
  return { cx, stream: () => new TestStream(cx, factory, { ...rest, routeConfigs }) };
}

/** The same for a script. */
export const script = (text: string, options?: Parameters<typeof harness>[1]) =>
  harness({ default_source_code: source(text) }, options);

/** What `expression` is on a request: `show(…)` puts its arguments into a header. */
export function shown(
  expression: string,
  options?: Parameters<typeof harness>[1],
): string | undefined {
  const text = `
    function envoy_on_request(h)
      local function show(...)
        local t = {}
        for i = 1, select("#", ...) do t[i] = tostring((select(i, ...))) end
        h:headers():add("x-shown", table.concat(t, " "))
      end
      show(${expression})
    end`;
  return script(text, options)
    .stream()
    .requestHeaders("GET", "/path?q=1", { "x-a": "1" })
    .upstream.header("x-shown");
}

export const logged = (cx: TestContext) => cx.logged.map(({ message }) => message);
