import fs from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { filter, type World, Worlds, yaml } from "./test-world.ts";

const worlds = new Worlds();
beforeAll(() => worlds.begin());
afterEach(() => worlds.clear());
afterAll(() => worlds.end());

test("takes code and config up together when each needs the other", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2").replace("word:", "words:"));
  await world.says("stays at generation 1");
  fs.writeFileSync(world.config, yaml("shout").replace("word:", "words:"));
  await world.serves("v2");
  expect(world.serving.listeners[0]?.filterChains[0]?.filters[0]?.config).toEqual({
    words: "hello",
  });
});

test("takes a config edit up, once it has held still", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.config, yaml("shout", 10001));
  await world.serving.until("the port", () => world.serving.listeners[0]?.address.port === 10001);
  await world.says("front.yaml (generation 2) in ");
});

test("keeps the config when an edit is wrong, and names the line", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.config, yaml("shoot"));
  await world.says("the config of before goes on");
  expect(world.refusals[0]).toMatch(/front\.yaml:7:15: .*"shoot".*did you mean "shout"/);
  expect(world.serving.commits).toHaveLength(1);
});

test("attempts a refused config again when told to look at all files, and tells of it again", async () => {
  let isTaken = true;
  const refusal = { package: "", message: "the port is taken", path: "", place: "", stack: "" };
  const world = await worlds.started({
    canary: (change) => (isTaken && change.config !== undefined ? [refusal] : []),
  });
  fs.writeFileSync(world.config, yaml("shout", 10001));
  await world.says("the config of before goes on");
  const said = world.lines.length;
  world.reload.lookAtAll();
  await world.serving.until("another refusal", () =>
    world.lines.slice(said).some((line) => line.includes("the port is taken")),
  );
  isTaken = false;
  world.reload.lookAtAll();
  await world.serving.until("the port", () => world.serving.listeners[0]?.address.port === 10001);
});

test("tells of each save that is refused, for what the one before was refused for too", async () => {
  const hangs = { path: "", place: "", stack: "", stopped: true, message: "it hangs" };
  const world = await worlds.started({
    canary: ({ modules, config }) =>
      config === undefined && modules.length === 0 ? [] : [{ package: "network/shout", ...hangs }],
  });
  const saves = [
    () => fs.writeFileSync(world.config, yaml("shout", 10001)),
    () => fs.writeFileSync(world.config, yaml("shout", 10002)),
    () => fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2")),
    () => fs.writeFileSync(world.file("shout.ts"), filter("shout", "v3")),
  ];
  for (const [k, save] of saves.entries()) {
    save();
    await world.serving.until(`refusal ${k + 1}`, () => world.refusals.length === k + 1);
  }
  // Not with what another file says.
  fs.writeFileSync(world.file("other.ts"), "(");
  await world.serving.until("another one", () => world.refusals.length === saves.length + 1);
  expect(world.refusals.at(-1)).toContain("other.ts");
});

/** A world whose config takes a text from `word.txt`, in another folder. */
async function naming(word: string): Promise<{ world: World; file: string }> {
  const world = worlds.open();
  const folder = path.join(world.root, "words");
  fs.mkdirSync(folder);
  const file = path.join(folder, "word.txt");
  fs.writeFileSync(file, word);
  fs.writeFileSync(
    world.file("shout.ts"),
    filter("shout", "v1")
      .replace("Type }", "DataSource, Type }")
      .replace("Type.Optional(Type.String())", "DataSource()"),
  );
  fs.writeFileSync(
    world.config,
    yaml("shout").replace("word: hello", `word: { filename: ${file} }`),
  );
  await world.start();
  return { world, file };
}

const wordOf = (world: World): string =>
  (world.serving.listeners[0]!.filterChains[0]!.filters[0]!.config as { word: { text: string } })
    .word.text;

test("takes up a file that the config names, however it is saved", async () => {
  const { world, file } = await naming("one");
  expect(wordOf(world)).toBe("one");
  fs.writeFileSync(file, "two");
  await world.serving.until("the second word", () => wordOf(world) === "two");
  fs.writeFileSync(`${file}.new`, "three");
  fs.renameSync(`${file}.new`, file);
  await world.serving.until("the third word", () => wordOf(world) === "three");
  expect(world.refusals).toEqual([]);
});

test("takes up a file that the config names when code is saved as well, each once", async () => {
  const { world, file } = await naming("one");
  const code = fs.readFileSync(world.file("shout.ts"), "utf8");
  fs.writeFileSync(world.file("shout.ts"), code.replace("v1", "v2"));
  await world.serves("v2");
  expect(world.serving.commits.at(-1)?.config).toBeUndefined();
  fs.writeFileSync(file, "two");
  await world.serving.until("the second word", () => wordOf(world) === "two");
  fs.writeFileSync(world.file("shout.ts"), code.replace("v1", "v3"));
  await world.serves("v3");
  expect(world.serving.commits.at(-1)?.config).toBeUndefined();
});

test("keeps the config while a file that it names is gone, and takes it up when it is back", async () => {
  const { world, file } = await naming("one");
  fs.unlinkSync(file);
  await world.says("the config of before goes on");
  expect(world.refusals[0]).toMatch(
    /front\.yaml:8:\d+: .*word\.txt" cannot be read: no such file or directory/,
  );
  fs.writeFileSync(file, "two");
  await world.serving.until("the second word", () => wordOf(world) === "two");
});

test("never takes an empty config for one", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.config, "");
  await world.says("the file is empty");
  expect(world.serving.commits).toHaveLength(1);
});

test("says nothing of an empty config whose new text has not held still at the last look", async () => {
  const world = worlds.open();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v1"));
  await world.reload.start();
  vi.useFakeTimers({ toFake: ["setTimeout", "clearTimeout", "performance"] });
  try {
    fs.writeFileSync(world.config, "");
    // Looks at all come so closely that the last one is due 2000 ms after the first, which is 10 ms after the write.
    for (let k = 0; k < 20; k++) {
      if (k === 19) await vi.advanceTimersByTimeAsync(90);
      if (k === 19) fs.writeFileSync(world.config, yaml("shout", 10001));
      world.reload.lookAtAll();
      await vi.advanceTimersByTimeAsync(100);
    }
  } finally {
    vi.useRealTimers();
  }
  await world.serving.until("the port", () => world.serving.listeners[0]?.address.port === 10001);
  expect(world.refusals).toEqual([]);
});

test("refuses a wrong config again after the file was empty for a while", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.config, yaml("shoot"));
  await world.says('did you mean "shout"');
  fs.writeFileSync(world.config, "");
  await world.says("the file is empty");
  const said = world.lines.length;
  fs.writeFileSync(world.config, yaml("shoot"));
  await world.serving.until("the refusal", () =>
    world.lines.slice(said).some((line) => line.includes('did you mean "shout"')),
  );
});
