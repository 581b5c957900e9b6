import { describe, expect, it } from "vitest";
import { ResponseHeaders } from "./headers.ts";
import { type HttpFilter, hold, type PromptAnswer, type Verdict } from "./http.ts";
import { Walk } from "./walk.ts";

/** An answer that the test gives: before the event ends, or after it has said that it will be late. */
class Answer implements PromptAnswer {
  settle: (verdict: Verdict) => void = () => {};
  late: () => void = () => {};

  onLate(call: () => void): void {
    this.late = call;
  }

  // biome-ignore lint/suspicious/noThenProperty: it settles in the call that brings the verdict.
  then<A, B>(onFulfilled?: ((value: Verdict) => A | PromiseLike<A>) | null): PromiseLike<A | B> {
    this.settle = (verdict) => void onFulfilled?.(verdict);
    return this as unknown as PromiseLike<A | B>;
  }
}

/** A response whose head these filters are asked about, the last one first, and what became of it. */
function answered(...filters: HttpFilter[]) {
  const answer = new Answer();
  const told: string[] = [];
  const bodies: { memory: Uint8Array; text: string }[] = [];
  const walk = new Walk(
    {
      onReply: () => told.push("reply"),
      onFilterError: (error) => told.push(String(error)),
      bodyLimit: 8,
      onTooLarge: (_response, isWhole) => {
        told.push(isWhole ? "whole too large" : "too large");
        walk.stop();
      },
      onPromptEnd: () => told.push("prompt end"),
      onWaiting: (waiting) => told.push(`waiting ${waiting}`),
      encodeHead: () => told.push("head"),
      encodeBody: (chunk) => bodies.push({ memory: chunk.memory, text: chunk.text() }),
      encodeTrailers: () => told.push("trailers"),
    },
    true,
  );
  walk.begin(filters.length > 0 ? filters : [{ onResponseHeaders: () => answer }]);
  walk.head(new ResponseHeaders(), false);
  return { walk, answer, told, bodies };
}
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

it("holds as much of a body as its owner buffers, for a filter that gives no number", () => {
  const { walk, told } = answered({ onResponseHeaders: () => hold({ max: 0 }) });
  walk.body(bytes("12345678"), 0, 8, false);
  expect(told).toEqual([]);
  walk.body(bytes("9"), 0, 1, false);
  expect(told).toEqual(["too large"]);
});

describe("a hold that does not count a body of one chunk", () => {
  const few = { onResponseHeaders: () => hold({ max: 4, exceptLast: true }) };

  it("counts the last of several chunks", () => {
    const one = answered(few);
    one.walk.body(bytes("12345"), 0, 5, true);
    expect(one.told).toEqual(["head"]);
    const two = answered(few);
    two.walk.body(bytes("1"), 0, 1, false);
    two.walk.body(bytes("2345"), 0, 4, true);
    expect(two.told).toEqual(["too large"]);
  });

  it("counts a chunk that is more than its owner buffers", () => {
    const { walk, told } = answered({
      onResponseHeaders: () => hold({ max: 4, exceptLast: true }),
    });
    walk.body(bytes("123456789"), 0, 9, true);
    expect(told).toEqual(["too large"]);
  });

  it("counts a body that a filter before has held, and tells that it is whole", () => {
    const { walk, told } = answered(few, { onResponseHeaders: () => hold() });
    walk.body(bytes("12345"), 0, 5, true);
    expect(told).toEqual(["whole too large"]);
  });
});

describe("an answer that may come before the event ends", () => {
  it("costs no copy of what came with the head, and nobody is told to wait", () => {
    const { walk, answer, told, bodies } = answered();
    const event = bytes("hello");
    walk.body(event, 0, 5, true);
    answer.settle(undefined);
    expect(told).toEqual(["head", "prompt end"]);
    expect(bodies).toEqual([{ memory: event, text: "hello" }]);
  });

  it("keeps what came in pieces in order", () => {
    const { walk, answer, bodies } = answered();
    walk.body(bytes("hello, "), 0, 7, false);
    walk.body(bytes("world"), 0, 5, true);
    answer.settle(undefined);
    expect(bodies.map(({ text }) => text)).toEqual(["hello, world"]);
  });

  it("lets go of the event's bytes when it is late after all", () => {
    const { walk, answer, told, bodies } = answered();
    const event = bytes("hello");
    walk.body(event, 0, 5, true);
    answer.late();
    expect(told).toEqual(["waiting true", "prompt end"]);
    event.fill(0);
    answer.settle(undefined);
    expect(told.slice(2)).toEqual(["head", "waiting false"]);
    expect(bodies.map(({ text }) => text)).toEqual(["hello"]);
  });

  it("moves nothing of a stream that has ended meanwhile", () => {
    const { walk, answer, told, bodies } = answered();
    walk.body(bytes("hello"), 0, 5, true);
    walk.stop();
    answer.late();
    answer.settle(undefined);
    expect([told, bodies]).toEqual([[], []]);
  });
});

describe("what is no verdict", () => {
  it.each([["foo"], [5], [null], [{ status: 200 }]])("fails the filter: %j", async (value) => {
    for (const given of [value, Promise.resolve(value)]) {
      const { told } = answered({ onResponseHeaders: () => given as unknown as Verdict });
      await null;
      expect(told.filter((line) => !line.startsWith("waiting"))).toEqual([
        expect.stringMatching(
          /^NoVerdict: it returned .*; return nothing, done, reply\(…\) or hold/,
        ),
      ]);
    }
  });
});
