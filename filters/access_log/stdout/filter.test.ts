import { TestContext } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import stdout from "./filter.ts";

it("writes lines of its format to the process's stdout", () => {
  const cx = new TestContext();
  const logger = cx.setup(stdout, {
    log_format: { text_format_source: { inline_string: "%RESPONSE_CODE%\n" }, formatters: [] },
  });
  const info = { responseCode: 204 } as never;
  const entry = { info, request: undefined, response: undefined, trailers: undefined };
  logger.log(entry);
  logger.log(entry);
  expect(cx.files.get("/dev/stdout")).toBe("204\n204\n");
});
