import fs from "node:fs";
import path from "node:path";
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { filter, type World, Worlds, yaml } from "./test-world.ts";

const worlds = new Worlds();
beforeAll(() => worlds.begin());
afterEach(() => worlds.clear());
afterAll(() => worlds.end());

const marker = (world: World, name = "network/shout") =>
  /marker: "(\w+)"/.exec(world.serving.code(name))?.[1];

test("the process after a crash serves what served last, and then takes what was saved meanwhile", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  await world.crash();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v3"));
  fs.writeFileSync(world.config, yaml("shout", 10001));
  await world.reload.start(world.served);
  expect(marker(world)).toBe("v2");
  expect(world.serving.listeners[0]?.address.port).toBe(10000);
  world.reload.watch();
  await world.serves("v3");
  await world.serving.until(
    "the new config",
    () => world.serving.listeners[0]?.address.port === 10001,
  );
});

test("a filter that was removed, or is broken, before a process dies serves in the one after it, and is told", async () => {
  const world = await worlds.started();
  const shipped = path.join(world.shipped, "network/end/filter.ts");
  fs.writeFileSync(shipped, "export default (");
  await world.says("network/end stays at generation 1");
  await world.crash();
  fs.rmSync(world.file("shout.ts"));
  await world.start();
  expect(marker(world)).toBe("v1");
  expect(marker(world, "network/end")).toBe("end");
  await world.says("the files of network/shout are gone, and the config still uses it");
  await world.says("network/end stays at generation 1");
  // One that nothing uses any more is let go.
  const without = yaml("shout").replace(/ +- name: shout\n.*\n/, "");
  fs.writeFileSync(world.config, without);
  await world.says("removed network/shout");
  await world.crash();
  await world.start();
  expect(marker(world)).toBeUndefined();
});

test("the supervisor is told of new code at once, and of its source positions when saves rest", async () => {
  const world = await worlds.started();
  const told = () => {
    const kept = world.served!.packages.find(({ source }) => source.entry.includes("shout"))!;
    return { isNew: kept.bundle.code.includes('"v2"'), hasMap: kept.bundle.map !== undefined };
  };
  expect(told()).toEqual({ isNew: false, hasMap: true });
  const seen: ReturnType<typeof told>[] = [];
  world.onTold = () => seen.push(told());
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serving.until("both", () => seen.length > 1);
  expect(seen).toEqual([
    { isNew: true, hasMap: false },
    { isNew: true, hasMap: true },
  ]);
});

test("what served last and cannot serve again is told, and makes way for what is on disk", async () => {
  const world = await worlds.started();
  await world.crash();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  world.serving.refuse = ({ modules }) =>
    modules.some(({ code }) => Buffer.from(code as Uint8Array).includes('"v1"'))
      ? [{ package: "network/shout", message: "no more", path: "", place: "", stack: "" }]
      : [];
  await world.start();
  expect(marker(world)).toBe("v2");
  expect(world.lines.join()).toMatch(/no more[^]*what served before cannot serve again/);
});
