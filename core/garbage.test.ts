import { describe, expect, it } from "vitest";
import { Rest } from "./garbage.ts";
import { Isolate } from "./isolate.ts";

describe("Rest", () => {
  function told(...calls: number[]): number[] {
    const at: number[] = [];
    const rest = new Rest(() => at.push(second));
    let second = 0;
    for (const n of calls) {
      second++;
      rest.tick(n);
    }
    return at;
  }

  it("tells once when a busy thread has been quiet for two seconds", () => {
    expect(told(500, 5_000, 5_001, 5_003, 5_003, 5_010)).toEqual([4]);
  });
  it("tells again after the next busy time", () => {
    expect(told(5_000, 5_000, 5_000, 9_000, 9_000, 9_001, 9_001)).toEqual([3, 6]);
  });
  it("does not tell of a thread that goes on being asked, or was hardly ever", () => {
    expect(told(5_000, 5_100, 5_200, 5_300)).toEqual([]);
    expect(told(10, 20, 25, 25, 25)).toEqual([]);
  });
  it("starts again where another isolate counts from 0", () => {
    expect(told(50_000, 50_000, 50_000, 3_000, 3_000, 3_000)).toEqual([3, 6]);
  });
});

describe("Isolate", () => {
  it("gives back what its heap does not need, and what lives in it sees no collector", () => {
    const isolate = new Isolate({ memoryLimitMb: 256, sdk: "" });
    const code = `
      export const fill = () => { let all = []; for (let k = 0; k < 200_000; k++) all.push({ k }); };
      export const sees = () => typeof gc;`;
    const module = isolate.load({ code, filename: "hoard.js" });
    module.entry("fill")();
    const before = isolate.memory;
    isolate.collectGarbage();
    expect(isolate.memory).toBeLessThan(before / 2);
    expect(module.entry("sees")()).toBe("undefined");
    isolate.dispose();
  });
});
