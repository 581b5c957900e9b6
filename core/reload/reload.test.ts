import { execFileSync } from "node:child_process";
import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { hasGit } from "../../test/programs.ts";
import { textOf } from "../packages/module-code.ts";
import { StartError } from "./reload.ts";
import type { Change } from "./stage.ts";
import { filter, Worlds, yaml } from "./test-world.ts";

const worlds = new Worlds();
beforeAll(() => worlds.begin());
afterEach(() => worlds.clear());
afterAll(() => worlds.end());

test("starts with every package and the config in one generation", async () => {
  const world = await worlds.started();
  expect(world.serving.commits).toHaveLength(1);
  expect([...world.serving.modules.keys()].sort()).toEqual(["network/end", "network/shout"]);
  expect(world.serving.modules.get("network/end")?.group).toBe("builtin");
  expect(world.serving.modules.get("network/shout")?.group).toBe("network/shout");
  expect(world.serving.listeners[0]?.filterChains[0]?.filters.map((ref) => ref.package)).toEqual([
    "network/shout",
    "network/end",
  ]);
});

test("does not start when the config names a filter whose code is broken, and says both", async () => {
  const world = worlds.open();
  fs.writeFileSync(world.file("shout.ts"), "export default (");
  const error: StartError = await world.start().then(
    () => expect.unreachable(),
    (e) => e,
  );
  expect(error).toBeInstanceOf(StartError);
  expect(error.message).toMatch(/shout\.ts:1:17: unexpected end of file/);
  expect(error.message).toMatch(
    /front\.yaml:7:15: .*shout\.ts is "shout" and has errors of its own; mend those/,
  );
});

test("a file without default export is no package while another one imports it", async () => {
  const world = worlds.open();
  const plain = filter("shout", "v1");
  fs.writeFileSync(world.file("shared.ts"), "export const MARKER = 'shared';");
  const importing = plain.replace('"v1"', "MARKER");
  fs.writeFileSync(world.file("shout.ts"), `import { MARKER } from "./shared.ts";\n${importing}`);
  await world.start();
  const names = () => world.reload.packages().map((state) => state.package);
  expect([names(), world.refusals]).toEqual([["network/end", "network/shout"], []]);
  fs.writeFileSync(world.file("shared.ts"), "export const MARKER = 'another';");
  await world.serves("another");
  expect(world.refusals).toEqual([]);
  fs.writeFileSync(world.file("shout.ts"), plain);
  await world.says("shared.ts:1:1: no default export");
  expect(names()).toContainEqual(expect.stringContaining("shared.ts"));
});

test("takes up a write in place", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  await world.says("reloaded network/shout (generation 2) in ");
});

test("takes a save up that came while no file could be opened, and says once that it waits", async () => {
  const world = await worlds.started();
  const { readdirSync } = fs;
  let readsFailed = 0;
  fs.readdirSync = (() => {
    readsFailed++;
    throw Object.assign(new Error("EMFILE: too many open files"), { code: "EMFILE" });
  }) as never;
  syncBuiltinESMExports();
  try {
    fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
    await world.says("the reload failed, and is tried again");
    // Longer than the looks after a save go on.
    await vi.waitFor(() => expect(readsFailed).toBeGreaterThan(8), { timeout: 60_000 });
  } finally {
    fs.readdirSync = readdirSync;
    syncBuiltinESMExports();
  }
  await world.serves("v2");
  expect(world.lines.filter((line) => line.includes("the reload failed"))).toHaveLength(1);
});

test("takes up a rename over the file", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file(".shout.ts.tmp"), filter("shout", "v2"));
  fs.renameSync(world.file(".shout.ts.tmp"), world.file("shout.ts"));
  await world.serves("v2");
});

test("takes up an unlink and a create, and does not take the package away in between", async () => {
  const world = await worlds.started();
  fs.unlinkSync(world.file("shout.ts"));
  await delay(20);
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  expect(world.serving.commits.flatMap((change) => change.removed)).toEqual([]);
  expect(world.refusals).toEqual([]);
});

test("takes up a file that was truncated and written 20 ms later, without a word about the empty one", async () => {
  const world = await worlds.started();
  const handle = fs.openSync(world.file("shout.ts"), "w");
  await delay(20);
  fs.writeSync(handle, filter("shout", "v2"));
  fs.closeSync(handle);
  await world.serves("v2");
  expect(world.refusals).toEqual([]);
});

test("builds no file that is empty for a moment, and judges one that stays so with the last look", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), "");
  const problems = () => world.reload.packages().flatMap((state) => state.problems);
  while (problems().length === 0) await new Promise(setImmediate);
  expect(world.lines.join("\n")).toContain("shout.ts:1:1: ");
});

test("ends with the second of two saves 30 ms apart", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await delay(30);
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v3"));
  await world.serves("v3");
  const markers = world.serving.commits.map(
    (change) => /"(v\d)"/.exec(textOf(change.modules.at(-1)!))?.[1],
  );
  expect(markers.at(-1)).toBe("v3");
});

test("takes up a save that was another one for the moment in which it was to come into service", async () => {
  const world = await worlds.started();
  const save = (marker: string) =>
    fs.writeFileSync(world.file("shout.ts"), filter("shout", marker));
  let attempts = 0;
  world.serving.refuse = () => {
    if (attempts++ === 0) save("v3");
    return [];
  };
  const { abort } = world.serving;
  world.serving.abort = async () => {
    save("v2");
    return abort.call(world.serving);
  };
  save("v2");
  await world.serves("v2");
  expect(attempts).toBe(2);
});

test("takes up a save whose attempt broke off for want of something, once that is there", async () => {
  const world = await worlds.started();
  let attempts = 0;
  world.serving.refuse = () => {
    if (attempts++ === 0) throw Object.assign(new Error("EMFILE"), { code: "EMFILE" });
    return [];
  };
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.says("the reload failed, and is tried again");
  await world.serves("v2");
});

test.each(["", "// nothing yet\n"])(
  "an empty file (%j) is a mistake in that file alone",
  async (text) => {
    const world = await worlds.started();
    fs.writeFileSync(world.file("other.ts"), text);
    await world.says("other.ts:1:1: ");
    fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
    await world.serves("v2");
    fs.writeFileSync(world.file("shout.ts"), text);
    await world.says("shout.ts:1:1: ");
    expect(world.lines.filter((line) => line.includes("the reload failed"))).toEqual([]);
  },
);

test.skipIf(!hasGit)("takes up a checkout of fifty files", async () => {
  const world = worlds.open();
  const git = (...args: string[]) =>
    execFileSync(
      "git",
      [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "init.defaultBranch=a",
        ...args,
      ],
      { cwd: world.filters, stdio: "pipe" },
    );
  const names = Array.from({ length: 10 }, (_, k) => (k === 0 ? "shout" : `other${k}`));
  const write = (marker: string) => {
    for (const name of names) {
      fs.mkdirSync(world.file(name), { recursive: true });
      fs.writeFileSync(
        path.join(world.file(name), "filter.ts"),
        `import "./a.ts";\nimport "./b.ts";\nimport "./c.ts";\nimport "./d.ts";\n${filter(name, marker)}`,
      );
      for (const part of ["a", "b", "c", "d"])
        fs.writeFileSync(
          path.join(world.file(name), `${part}.ts`),
          `globalThis.${part} = "${marker}";\n`,
        );
    }
  };
  git("init", "-q");
  for (const marker of ["v1", "v2"]) {
    write(marker);
    git("add", ".");
    git("commit", "-q", "-m", marker);
  }
  git("checkout", "-q", "HEAD~1");
  await world.start();
  git("checkout", "-q", "a");
  const parts = /globalThis\.[abcd] = "v2"/g;
  await world.serving.until("all are v2", () =>
    names.every((name) => {
      const code = world.serving.code(`network/${name}`);
      return code.includes('marker: "v2"') && code.match(parts)?.length === 4;
    }),
  );
  expect(world.refusals).toEqual([]);
});

test("takes up a swapped ..data link, whether the old target goes or stays", async () => {
  const world = worlds.open();
  const mount = path.join(world.root, "mount");
  const version = (n: number) => {
    fs.mkdirSync(path.join(mount, `..v${n}`), { recursive: true });
    fs.writeFileSync(path.join(mount, `..v${n}`, "shout.ts"), filter("shout", `v${n}`));
    fs.writeFileSync(path.join(mount, `..v${n}`, "front.yaml"), yaml("shout", 10000 + n));
    fs.symlinkSync(`..v${n}`, path.join(mount, "..data_tmp"));
    fs.renameSync(path.join(mount, "..data_tmp"), path.join(mount, "..data"));
  };
  const portIs = (port: number) =>
    world.serving.until(`port ${port}`, () => world.serving.listeners[0]?.address.port === port);
  version(1);
  fs.symlinkSync("..data/shout.ts", path.join(mount, "shout.ts"));
  fs.symlinkSync("..data/front.yaml", path.join(mount, "front.yaml"));
  fs.rmdirSync(world.filters);
  fs.symlinkSync("mount", world.filters);
  fs.unlinkSync(world.config);
  fs.symlinkSync("mount/front.yaml", world.config);
  await world.start();
  await world.serves("v1");
  version(2);
  fs.rmSync(path.join(mount, "..v1"), { recursive: true });
  await world.serves("v2");
  await portIs(10002);
  version(3);
  await world.serves("v3");
  await portIs(10003);
  expect(world.refusals).toEqual([]);
});

test("ends with the last of many saves of every kind, in whatever order they come", async () => {
  const world = await worlds.started();
  const file = world.file("shout.ts");
  const kinds: ((text: string) => unknown)[] = [
    (text) => fs.writeFileSync(file, text),
    (text) => {
      fs.writeFileSync(world.file(".tmp"), text);
      fs.renameSync(world.file(".tmp"), file);
    },
    async (text) => {
      fs.rmSync(file, { force: true });
      await delay(5);
      fs.writeFileSync(file, text);
    },
    async (text) => {
      const handle = fs.openSync(file, "w");
      fs.writeSync(handle, text.slice(0, 60));
      await delay(10);
      fs.writeSync(handle, text.slice(60));
      fs.closeSync(handle);
    },
  ];
  let n = 1;
  const from = performance.now();
  let slowestMs = 0;
  for (const gap of [0, 1, 3, 7, 15, 31, 40, 0, 50, 2, 62, 5, 0, 0, 20, 33]) {
    const began = performance.now();
    await kinds[n % kinds.length]!(filter("shout", `v${++n}`));
    slowestMs = Math.max(slowestMs, performance.now() - began);
    await delay(gap);
  }
  const savedWithinMs = performance.now() - from;
  await world.serves(`v${n}`);
  await world.serving.until("nothing is wrong", () =>
    world.reload.packages().every((p) => p.state === "active"),
  );
  const order = world.serving.commits.flatMap((change) =>
    change.modules.map((m) => Number(/"v(\d+)"/.exec(textOf(m))?.[1] ?? 0)),
  );
  expect(order.slice(2)).toEqual(order.slice(2).toSorted((a, b) => a - b));
  // A file is judged as it stands 250 ms after the last event, or two seconds after the first: on a slow machine, half a file.
  if (savedWithinMs < 1_500 && slowestMs < 100) expect(world.refusals).toEqual([]);
});

test("keeps serving what it has when a save does not parse, says so once with the place, and recovers", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), "const a = 1;\nconst = 2;\n");
  await world.says("stays at generation 1");
  expect(world.refusals).toHaveLength(1);
  expect(world.refusals[0]).toMatch(/shout\.ts:2:7: .*\n> 2 \| const = 2;\n {4}\| {7}\^/);
  expect(world.reload.packages().find((p) => p.package === "network/shout")).toMatchObject({
    state: "failed",
    generation: 1,
  });
  expect(world.serving.code("network/shout")).toContain('"v1"');
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  expect(world.reload.packages().find((p) => p.package === "network/shout")).toMatchObject({
    state: "active",
    generation: 2,
  });
});

test("serves a package with a hook that nothing calls, and warns of its line", async () => {
  const world = await worlds.started();
  const misspelt = filter("shout", "v2").replace("marker:", "onDate() {}, marker:");
  fs.writeFileSync(world.file("shout.ts"), misspelt);
  await world.serves("v2");
  await world.says(
    'shout.ts:6:36: the proxy calls no "onDate" of network filters; did you mean "onData"?',
  );
});

test("goes back to nothing to do when a bad save is undone", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), "(");
  await world.says("stays at generation 1");
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v1"));
  await world.serving.until("it is fine again", () =>
    world.reload.packages().every((p) => p.state === "active"),
  );
  expect(world.serving.commits).toHaveLength(1);
});

test("commits nothing when the canary refuses, and reports the line of the code that threw", async () => {
  const world = await worlds.started({
    canary: (change) => {
      const bad = change.modules.find((module) => textOf(module).includes('"bad"'));
      if (bad === undefined) return [];
      const line =
        textOf(bad)
          .split("\n")
          .findIndex((text) => text.includes('"bad"')) + 1;
      return [
        {
          package: bad.package,
          message: "boom",
          path: "",
          place: "",
          stack: `Error: boom\n    at setup (${bad.filename}:${line}:5)`,
        },
      ];
    },
  });
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "bad"));
  await world.says("stays at generation 1");
  expect(world.refusals[0]).toMatch(/shout\.ts:6:\d+: boom\n/);
  expect(world.serving.commits).toHaveLength(1);
});

test("takes a good package up although another one that was saved with it is refused", async () => {
  const world = await worlds.started({
    canary: (change) =>
      change.modules
        .filter((module) => textOf(module).includes('"bad"'))
        .map((module) => ({
          package: module.package,
          message: "boom",
          path: "",
          place: "",
          stack: "",
        })),
  });
  fs.writeFileSync(world.file("other.ts"), filter("other", "bad"));
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  await world.says("network/other cannot be used");
  expect(world.serving.modules.has("network/other")).toBe(false);
});

test("sets code up once that an isolate was stopped in, and again when its files change", async () => {
  let setUp = 0;
  const world = await worlds.started({
    canary: ({ modules }) => {
      const bad = modules.find((module) => textOf(module).includes('"hangs'));
      if (bad === undefined) return [];
      setUp++;
      world.serving.changed();
      const { package: name } = bad;
      const message = "setup did not return";
      return [{ package: name, message, path: "", place: "", stack: "", stopped: true }];
    },
  });
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "hangs 1"));
  await world.says("network/shout stays at generation 1 until its files or its config change");
  fs.writeFileSync(world.config, yaml("shout", 10001));
  await world.serving.until("the port", () => world.serving.listeners[0]?.address.port === 10001);
  fs.writeFileSync(world.file("other.ts"), filter("other", "v1"));
  await world.serves("v1", "network/other");
  expect(setUp).toBe(1);
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "hangs 2"));
  await world.serving.until("the second attempt", () => setUp === 2);
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
});

test("sets code up again that an isolate was stopped in when the config tells it something else", async () => {
  let told = "hello";
  const world = await worlds.started({
    canary: ({ modules, config }) => {
      const bad = modules.find((module) => textOf(module).includes("more:"));
      const ref = config?.listeners[0]?.filterChains[0]?.filters[0];
      if (ref !== undefined) told = JSON.stringify(ref.config);
      if (bad === undefined || told.includes("ends")) return [];
      const { package: name } = bad;
      const message = `setup did not return, told ${told}`;
      return [{ package: name, message, path: "", place: "", stack: "", stopped: true }];
    },
  });
  const code = filter("shout", "v2").replace(
    "{ word:",
    "{ more: Type.Optional(Type.String()), word:",
  );
  fs.writeFileSync(world.file("shout.ts"), code);
  await world.says("network/shout stays at generation 1 until its files or its config change");
  // The code of before takes this, the next only the one that waits.
  fs.writeFileSync(world.config, yaml("shout").replace("hello", "loops"));
  await world.says('told {"word":"loops"}');
  fs.writeFileSync(world.config, yaml("shout").replace("hello", "hello, more: ends"));
  await world.serves("v2");
});

test("refuses code whose schema does not take the config that serves", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2").replace("word:", "words:"));
  await world.says("stays at generation 1");
  expect(world.refusals[0]).toMatch(/front\.yaml:8:\d+: .*word/);
  expect(world.serving.commits).toHaveLength(1);
});

test("offers a package that was dropped in, takes it away when it is gone, and keeps it while the config uses it", async () => {
  const world = await worlds.started();
  fs.mkdirSync(world.file("late"));
  fs.writeFileSync(path.join(world.file("late"), "index.ts"), filter("late", "v1"));
  await world.serves("v1", "network/late");
  fs.rmSync(world.file("late"), { recursive: true });
  await world.says("removed network/late");
  expect(world.serving.modules.has("network/late")).toBe(false);
  fs.unlinkSync(world.file("shout.ts"));
  await world.says("the files of network/shout are gone");
  expect(world.serving.code("network/shout")).toContain('"v1"');
});

test("a package whose files come back as they were is as it was before: what serves, or refused", async () => {
  const world = await worlds.started();
  const goes = async () => {
    world.lines.length = 0;
    fs.renameSync(world.file("shout.ts"), `${world.filters}.away`);
    await world.says("the files of network/shout are gone");
    world.lines.length = 0;
    fs.renameSync(`${world.filters}.away`, world.file("shout.ts"));
  };
  await goes();
  await world.says("network/shout is again what serves");
  const asks = filter("shout", "v2").replace("word:", "words:");
  fs.writeFileSync(world.file("shout.ts"), asks);
  await world.says("stays at generation 1");
  await goes();
  await world.says("network/shout stays at generation 1");
  expect(world.refusals[0]).toMatch(/front\.yaml:8:\d+: .*word/);
  expect(world.serving.commits).toHaveLength(1);
});

test("starts and goes on without a drop-in directory that appears later", async () => {
  const world = worlds.open();
  fs.rmdirSync(world.filters);
  fs.writeFileSync(
    world.config,
    yaml("network/end").replace("      - name: network/end\n        config: { word: hello }\n", ""),
  );
  await world.start();
  fs.mkdirSync(world.filters);
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v1"));
  await world.serves("v1");
});

test("refuses the later of two dropped-in packages with one name", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("twin.ts"), filter("shout", "twin"));
  await world.says("give one of them another name");
  expect(world.serving.code("network/shout")).toContain('"v1"');
});

test("lets a dropped-in package hide a shipped one by its bare name, and says so", async () => {
  const world = await worlds.started();
  fs.writeFileSync(world.file("end.ts"), filter("end", "mine", true));
  await world.says('"end" now means');
  expect(world.serving.code("network/end@dropped-in")).toContain('"mine"');
  expect(world.serving.code("network/end")).toContain('"end"');
});

test("refuses a kind that runs among the shipped packages unless it is trusted", async () => {
  const world = await worlds.started();
  fs.writeFileSync(
    world.file("pick.ts"),
    'import { defineService, Type } from "@tsproxy/sdk";\nexport default defineService({ name: "pick", config: Type.Object({}), setup: () => ({}) });\n',
  );
  await world.says("start with --trust pick");
  fs.rmSync(world.file("pick.ts"));
});

test("reloads a shipped package under the same name", async () => {
  const world = await worlds.started();
  fs.writeFileSync(
    path.join(world.shipped, "network/end/filter.ts"),
    filter("envoy.filters.network.end", "v2", true),
  );
  await world.serves("v2", "network/end");
  expect(world.serving.modules.get("network/end")?.group).toBe("builtin");
});

test("takes code back that brought a thread down before the others served it, although one cannot set it up at once", async () => {
  const world = await worlds.started();
  const isHanging = (change: Change) => change.modules.some((m) => textOf(m).includes('"hangs"'));
  world.serving.onCommit = (change) => {
    if (isHanging(change)) world.reload.takeBack(["network/end"], "hung");
  };
  world.serving.refuse = ({ generation }) =>
    generation === 3 ? [{ package: "", message: "lost", path: "", place: "", stack: "" }] : [];
  const end = path.join(world.shipped, "network/end/filter.ts");
  fs.writeFileSync(end, filter("envoy.filters.network.end", "hangs", true));
  await world.says("network/end stays at generation 4");
  expect(world.serving.code("network/end")).toContain('"end"');
});

test("takes code back that brought a thread down, and leaves it until its files change", async () => {
  const world = await worlds.started();
  const end = path.join(world.shipped, "network/end/filter.ts");
  fs.writeFileSync(end, filter("envoy.filters.network.end", "hangs", true));
  await world.serves("hangs", "network/end");
  world.reload.takeBack(["network/end"], "hung");
  await world.serves("end", "network/end");
  await world.says("network/end stays at generation 3");
  expect(world.refusals[0]).toMatch(
    /network\/end\/filter\.ts:6:3: hung; this is the first line that differs from what serves again\n/,
  );
  fs.writeFileSync(world.file("shout.ts"), filter("shout", "v2"));
  await world.serves("v2");
  expect(world.serving.code("network/end")).toContain('"end"');
  fs.writeFileSync(end, filter("envoy.filters.network.end", "mended", true));
  await world.serves("mended", "network/end");
});

test("takes code back although a later save of it does not parse", async () => {
  const world = await worlds.started();
  const end = path.join(world.shipped, "network/end/filter.ts");
  const save = (marker: string) =>
    fs.writeFileSync(end, filter("envoy.filters.network.end", marker, true));
  save("hangs");
  await world.serves("hangs", "network/end");
  fs.writeFileSync(end, "export default {");
  await world.says("network/end stays at generation 2");
  world.reload.takeBack(["network/end"], "hung");
  await world.serves("end", "network/end");
  save("mended");
  await world.serves("mended", "network/end");
});

test("a save that was refused for the config is still there after the code before it was taken back", async () => {
  let refuses = true;
  const refusal = { package: "network/end", message: "no", path: "", place: "", stack: "" };
  const world = await worlds.started({
    canary: (change) =>
      refuses && change.modules.some((m) => textOf(m).includes('"later"')) ? [refusal] : [],
  });
  const end = path.join(world.shipped, "network/end/filter.ts");
  const save = (marker: string) =>
    fs.writeFileSync(end, filter("envoy.filters.network.end", marker, true));
  save("hangs");
  await world.serves("hangs", "network/end");
  save("later");
  await world.says("network/end stays at generation 2");
  world.reload.takeBack(["network/end"], "hung");
  await world.serves("end", "network/end");
  refuses = false;
  fs.writeFileSync(world.config, yaml("shout", 10001));
  await world.serves("later", "network/end");
});
