import { EventEmitter } from "node:events";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import os from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { type Interest, placesOf, unwatchedMessage, Watch } from "./watch.ts";

/** For a machine that is busy with something else. */
const PATIENT = { timeout: 120_000, interval: 5 };

let root: string;
beforeEach(() => {
  root = fs.realpathSync(fs.mkdtempSync(path.join(os.tmpdir(), "watch-")));
});
afterEach(() => {
  vi.useRealTimers();
  fs.rmSync(root, { recursive: true, force: true });
});

test("a file is seen from its directory and from that of every link on the way", () => {
  fs.mkdirSync(path.join(root, "mount/..v1"), { recursive: true });
  fs.writeFileSync(path.join(root, "mount/..v1/a.yaml"), "");
  fs.symlinkSync("..v1", path.join(root, "mount/..data"));
  fs.symlinkSync("..data/a.yaml", path.join(root, "mount/a.yaml"));
  fs.symlinkSync("mount", path.join(root, "etc"));
  expect(placesOf(path.join(root, "etc/a.yaml"))).toEqual(
    new Map([
      [root, new Set(["etc"])],
      [path.join(root, "mount"), new Set(["a.yaml", "..data"])],
      [path.join(root, "mount/..v1"), new Set(["a.yaml"])],
    ]),
  );
});

test("a link that points at itself ends the search", () => {
  fs.symlinkSync("loop", path.join(root, "loop"));
  expect(placesOf(path.join(root, "loop"))).toEqual(new Map([[root, new Set(["loop"])]]));
});

test("a directory that comes later is watched once it is there, and again after it was replaced", async () => {
  const seen: string[] = [];
  const watch = new Watch((directory) => {
    seen.push(directory);
    watch.refresh();
  });
  const late = path.join(root, "late");
  const isSeen = () => vi.waitFor(() => expect(seen).toContain(late), PATIENT);
  watch.set(new Map([[late, undefined]]));
  fs.mkdirSync(late);
  await vi.waitFor(() => expect(seen).toContain(root), PATIENT);
  fs.writeFileSync(path.join(late, "a.ts"), "1");
  await isSeen();
  fs.mkdirSync(path.join(root, "next"));
  fs.renameSync(late, path.join(root, "old"));
  fs.renameSync(path.join(root, "next"), late);
  watch.refresh();
  seen.length = 0;
  fs.writeFileSync(path.join(late, "a.ts"), "2");
  await isSeen();
  watch.close();
});

test("a directory that is deleted just before it would be watched is seen when it is back", async () => {
  const late = path.join(root, "late");
  const seen: string[] = [];
  const watch = new Watch((directory) => seen.push(directory));
  const others = new Set(["envoy.yaml"]);
  watch.set(new Map([[root, others]]));
  seen.length = 0;
  fs.mkdirSync(late);
  /** The directory goes once it has been found. */
  class Vanishing extends Map<string, Interest> {
    override *[Symbol.iterator](): MapIterator<[string, Interest]> {
      yield [late, undefined];
      fs.rmSync(late, { recursive: true, force: true });
      yield [root, others];
    }
  }
  watch.set(new Vanishing());
  fs.mkdirSync(late);
  await vi.waitFor(() => expect(seen).toContain(root), PATIENT);
  watch.close();
});

test("logs and swap files beside sources are no events", async () => {
  const seen: string[] = [];
  const watch = new Watch((directory) => seen.push(directory));
  watch.set(new Map([[root, undefined]]));
  for (const noise of ["access.log", ".a.ts.swp", "a.ts~", "x.tmp"])
    fs.writeFileSync(path.join(root, noise), "1");
  fs.mkdirSync(path.join(root, "end"));
  await vi.waitFor(() => expect(seen.length).toBeGreaterThan(0), PATIENT);
  expect(seen).toEqual([root]);
  watch.close();
});

test("where a file alone matters, others beside it are no events", async () => {
  const seen: string[] = [];
  const watch = new Watch((directory) => seen.push(directory));
  watch.set(new Map([[root, new Set(["front.yaml"])]]));
  for (const other of ["other.yaml", "front.yaml.bak", "data"])
    fs.writeFileSync(path.join(root, other), "1");
  fs.mkdirSync(path.join(root, "front.yaml"));
  await vi.waitFor(() => expect(seen.length).toBeGreaterThan(0), PATIENT);
  expect(seen).toEqual([root]);
  watch.close();
});

test("a directory among files that do not matter is seen when it comes back, with what came with it", async () => {
  const seen: string[] = [];
  const site = path.join(root, "site");
  const page = path.join(site, "page");
  const make = () => {
    fs.mkdirSync(page, { recursive: true });
    fs.writeFileSync(path.join(page, "a.txt"), "");
  };
  make();
  const watch = new Watch((directory) => {
    seen.push(directory);
    watch.refresh();
  });
  watch.set(
    new Map([
      [root, new Set(["front.yaml"])],
      [page, new Set(["a.txt"])],
    ]),
  );
  expect(seen).toEqual([root, page]);
  for (let round = 0; round < 20; round++) {
    fs.rmSync(site, { recursive: true });
    await vi.waitFor(() => expect(seen).toContain(root), PATIENT);
    seen.length = 0;
    make();
    await vi.waitFor(() => expect(seen).toContain(page), PATIENT);
    seen.length = 0;
    fs.writeFileSync(path.join(page, "a.txt"), `${round}`);
    await vi.waitFor(() => expect(seen).toContain(page), PATIENT);
    seen.length = 0;
  }
  watch.close();
});

test("a directory with many events that do not matter is looked at now and then instead, and loses none that do", () => {
  const file = path.join(root, "front.yaml");
  fs.writeFileSync(file, "1");
  const { watch } = fs;
  const open: EventEmitter[] = [];
  fs.watch = ((_directory: string, onEvent: (...event: unknown[]) => void) => {
    const watcher = new EventEmitter().on("change", onEvent);
    open.push(watcher);
    return Object.assign(watcher, { close: () => void open.splice(open.indexOf(watcher), 1) });
  }) as never;
  syncBuiltinESMExports();
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval", "performance"] });
  const seen: string[] = [];
  const own = new Watch(
    (directory) => seen.push(directory),
    () => expect.unreachable("the system has watches"),
  );
  const happens = (times: number) => {
    for (let k = 0; k < times && open.length > 0; k++) open[0]!.emit("change", "change", `${k}`);
  };
  try {
    own.set(new Map([[root, new Set(["front.yaml"])]]));
    expect(seen.splice(0)).toEqual([root]);
    for (let second = 0; second < 30; second++) {
      happens(4_000);
      vi.advanceTimersByTime(1_000);
    }
    expect(open.length).toBe(1);
    expect(seen).toEqual([]);
    happens(10_000);
    expect(open.length).toBe(0);
    expect(seen.splice(0)).toEqual([root]);
    own.refresh();
    expect(open.length).toBe(0);
    fs.writeFileSync(file, "22");
    vi.advanceTimersByTime(2_000);
    expect(seen.splice(0)).toEqual([root]);
    expect(open.length).toBe(1);
    happens(10_000);
    vi.advanceTimersByTime(2_000);
    expect(seen).toEqual([root]);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    fs.watch = watch;
    syncBuiltinESMExports();
    own.close();
  }
});

test("what the system has no watch for is compared now and then, until it has one again", async () => {
  const file = path.join(root, "front.yaml");
  fs.writeFileSync(file, "1");
  const { watch } = fs;
  fs.watch = (() => {
    throw Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
  }) as never;
  syncBuiltinESMExports();
  vi.useFakeTimers({ toFake: ["setInterval", "clearInterval"] });
  const told: unknown[] = [];
  const seen: string[] = [];
  const own = new Watch(
    (directory) => seen.push(directory),
    (unwatched) => told.push(unwatched && unwatchedMessage(unwatched)),
  );
  try {
    own.set(
      new Map([
        [root, new Set(["front.yaml"])],
        [path.join(root, "filters"), undefined],
      ]),
    );
    const reason = `cannot watch ${root} (ENOSPC), so edits there are looked for every 2 s; raise fs.inotify.max_user_watches`;
    expect(told).toEqual([reason]);
    vi.advanceTimersByTime(2_000);
    expect(seen).toEqual([]);
    fs.writeFileSync(file, "22");
    vi.advanceTimersByTime(2_000);
    expect(seen).toEqual([root]);
    fs.mkdirSync(path.join(root, "filters"));
    vi.advanceTimersByTime(2_000);
    expect(seen).toEqual([root, root]);
    expect(told).toEqual([reason]);
    fs.watch = watch;
    syncBuiltinESMExports();
    vi.advanceTimersByTime(2_000);
    expect(told).toEqual([reason, undefined]);
    // It had been looked at until then.
    expect(seen).toEqual([root, root]);
    expect(vi.getTimerCount()).toBe(0);
  } finally {
    fs.watch = watch;
    syncBuiltinESMExports();
    own.close();
  }
});
