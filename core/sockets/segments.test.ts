import { describe, expect, test } from "vitest";
import { Segments, Slots } from "./segments.ts";

describe("segments", () => {
  test("a pinned segment goes out of use, and comes back with its last unpin", () => {
    const segments = new Segments(1000, 100, 4);
    expect([segments.inputAt, segments.outputStart, segments.freeCount]).toEqual([1000, 1100, 2]);
    segments.pin(0);
    segments.pin(0);
    expect(segments.inputAt).not.toBe(1000);
    segments.unpin(0);
    expect(segments.freeCount).toBe(1);
    segments.unpin(0);
    expect(segments.freeCount).toBe(2);
  });

  test("both segments in use can be pinned while two are free, and no more after that", () => {
    const segments = new Segments(0, 100, 4);
    expect(segments.mayPin).toBe(true);
    segments.pin(segments.of(segments.inputAt));
    segments.pin(segments.of(segments.outputStart));
    expect(segments.mayPin).toBe(false);
    expect(segments.inputAt).not.toBe(segments.outputStart);
  });

  test("a piece lies in one segment", () => {
    const segments = new Segments(1000, 100, 2);
    expect(segments.holds(1000, 100)).toBe(true);
    expect(segments.holds(1050, 51)).toBe(false);
    expect(segments.holds(999, 1)).toBe(false);
    expect(segments.holds(1199, 2)).toBe(false);
  });

  test("input that is handled gives its room back", () => {
    const segments = new Segments(0, 100, 2);
    segments.inputAt += 90;
    expect(segments.hasInput(10)).toBe(true);
    expect(segments.hasInput(11)).toBe(false);
    segments.resetInput();
    expect(segments.hasInput(100)).toBe(true);
  });
});

describe("slots", () => {
  test("a slot is free only when reader, events and writes have all let go of it", () => {
    const slots = new Slots(0, 10, 1);
    const slot = slots.take();
    slots.hold(slot);
    expect(slots.isQuiet(slot)).toBe(false);
    expect(slots.take()).toBe(-1);
    slots.drop(slot);
    expect(slots.isQuiet(slot)).toBe(true);
    slots.drop(slot);
    expect(slots.take()).toBe(slot);
  });
});
