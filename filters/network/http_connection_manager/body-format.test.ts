import { expect, it } from "vitest";
import { compileBodyFormat } from "./body-format.ts";

it("carries a content type beyond Latin-1 as UTF-8", () => {
  const config = { text_format: "x", content_type: "text/ж" } as never;
  const bytes = Buffer.from("text/ж").toString("latin1");
  expect(compileBodyFormat(config, "body_format").type).toBe(bytes);
});
