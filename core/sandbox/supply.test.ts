import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { IsolateNumbers } from "../isolate-numbers.ts";
import { sharedCode } from "../packages/module-code.ts";
import { imageCode } from "./fake-worker.ts";
import { SandboxImage } from "./image.ts";
import { EmptyIsolate } from "./isolate.ts";
import { Supply } from "./supply.ts";

let image: SandboxImage;
beforeAll(async () => {
  image = new SandboxImage(sharedCode(await imageCode()));
});
beforeEach(() => void vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout"] }));
afterEach(() => {
  vi.useRealTimers();
  vi.restoreAllMocks();
});

/** A supply, and what has been made of it. */
function watched() {
  const build = vi.spyOn(EmptyIsolate, "build");
  const made = () => Promise.all(build.mock.results.map(({ value }) => value as EmptyIsolate));
  return { supply: new Supply(image, new IsolateNumbers(0)), made };
}

/** One need, and what follows on it. */
async function need(supply: Supply): Promise<void> {
  (await supply.takeIsolate()).dispose();
  supply.restock();
}

const alive = (made: readonly EmptyIsolate[]) => made.filter(({ isolate }) => !isolate.isDisposed);

test("one isolate is made ahead of needs that are far apart", async () => {
  const { supply, made } = watched();
  for (let n = 0; n < 3; n++) {
    await need(supply);
    vi.advanceTimersByTime(11_000);
  }
  expect(alive(await made())).toHaveLength(1);
  supply.dispose();
});

test("two are made ahead while needs follow each other, and one is kept after that", async () => {
  const { supply, made } = watched();
  for (let n = 0; n < 3; n++) await need(supply);
  expect(alive(await made())).toHaveLength(2);
  vi.advanceTimersByTime(11_000);
  expect(alive(await made())).toHaveLength(1);
  supply.dispose();
  await made();
  expect(alive(await made())).toHaveLength(0);
});

test("memory of an isolate that nobody needed is another one's later", async () => {
  const { supply, made } = watched();
  for (let n = 0; n < 3; n++) await need(supply);
  const spares = alive(await made());
  vi.advanceTimersByTime(11_000);
  await made();
  const given = spares.filter(({ isolate }) => isolate.isDisposed).map(({ memory }) => memory);
  const isolates = [await supply.takeIsolate(), await supply.takeIsolate()];
  expect(given).toHaveLength(1);
  expect(isolates.map(({ memory }) => memory)).toContain(given[0]);
  for (const isolate of isolates) isolate.dispose();
  supply.dispose();
});
