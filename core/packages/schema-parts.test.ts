import { Type } from "@tsproxy/sdk";
import { expect, test } from "vitest";
import { partsOf, wholeOf } from "./schema-parts.ts";

test("a schema is put together again, and what is alike in it is one object", () => {
  const duration = Type.String({ pattern: "s$" });
  const schema = JSON.parse(
    JSON.stringify(
      Type.Object({
        idle: duration,
        all: Type.Array(Type.Union([duration, Type.Null()])),
        limits: Type.Object({ idle: duration }, { default: {} }),
      }),
    ),
  );
  const whole = wholeOf(JSON.parse(JSON.stringify(partsOf(schema)))) as typeof schema;
  expect(whole).toEqual(schema);
  expect(whole.properties.limits.properties.idle).toBe(whole.properties.idle);
  expect(whole.properties.all.items.anyOf[0]).toBe(whole.properties.idle);
});
