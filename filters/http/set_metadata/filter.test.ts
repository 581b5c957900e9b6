import { typedMetadataOf } from "@tsproxy/sdk";
import { TestContext, TestStream, withDefaults } from "@tsproxy/sdk/testing";
import { expect, it } from "vitest";
import filter, { Config } from "./filter.ts";

function metadataOf(config: object, before: Record<string, Record<string, unknown>> = {}) {
  const cx = new TestContext();
  const stream = new TestStream(cx, cx.setup(filter, withDefaults(Config, config)));
  for (const [name, value] of Object.entries(before)) stream.metadata.set(name, value);
  stream.requestHeaders("GET", "/");
  return { metadata: Object.fromEntries(stream.metadata), cx };
}

it("sets what nobody has set", () => {
  const metadata = [
    { metadata_namespace: "a", value: { x: 1 } },
    { metadata_namespace: "b", value: { y: { z: [true] } } },
  ];
  expect(metadataOf({ metadata }).metadata).toEqual({ a: { x: 1 }, b: { y: { z: [true] } } });
});

it("merges where it may overwrite, and counts where it may not", () => {
  const before = { a: { x: 1, list: [1], map: { k: 1 }, kept: "k" }, b: { x: 1 } };
  const value = { x: "2", list: [2], map: { l: 2 } };
  const { metadata, cx } = metadataOf(
    {
      metadata: [
        { metadata_namespace: "a", allow_overwrite: true, value },
        { metadata_namespace: "b", value },
      ],
    },
    before,
  );
  expect(metadata).toEqual({
    a: { x: "2", list: [1, 2], map: { k: 1, l: 2 }, kept: "k" },
    b: { x: 1 },
  });
  expect(before.a).toEqual({ x: 1, list: [1], map: { k: 1 }, kept: "k" });
  expect(cx.stats.value("set_metadata.overwrite_denied")).toBe(1);
});

it("sets typed metadata beside the other, by its fields", () => {
  const text = { "@type": "type.googleapis.com/google.protobuf.StringValue", value: "hello" };
  const struct = { "@type": "type.googleapis.com/google.protobuf.Struct", value: { k: 1 } };
  const cx = new TestContext();
  const metadata = [
    { metadata_namespace: "a", typed_value: text },
    { metadata_namespace: "b", typed_value: struct },
    { metadata_namespace: "a", typed_value: struct },
  ];
  const stream = new TestStream(cx, cx.setup(filter, withDefaults(Config, { metadata })));
  stream.requestHeaders("GET", "/");
  expect(typedMetadataOf(stream.filterState)).toEqual({
    a: { value: "hello" },
    b: { fields: { k: 1 } },
  });
  expect([stream.metadata.size, cx.stats.value("set_metadata.overwrite_denied")]).toEqual([0, 1]);
});

it("takes the form of before, which overwrites", () => {
  const config = { metadata_namespace: "a", value: { x: 2 } };
  expect(metadataOf(config, { a: { x: 1, y: 1 } }).metadata).toEqual({ a: { x: 2, y: 1 } });
});
