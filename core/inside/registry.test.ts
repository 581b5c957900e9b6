import type { Definition } from "@tsproxy/sdk";
import { expect, it } from "vitest";
import { Registry, Scope } from "./registry.ts";

it("gives two nested uses of one name two places", () => {
  const scope = new Scope({} as never, "http/outer", { pointer: "/a", statPrefix: "" }, undefined);
  const places = ["one", "x/y", "one", "one"].map((name) => scope.nestedPlace("http", name));
  expect(places).toEqual(["/a/http:one", "/a/http:x~1y", "/a/http#2:one", "/a/http#3:one"]);
});

it("runs the disposers of a scope latest first, without those that were forgotten", () => {
  const scope = new Scope({} as never, "http/outer", { pointer: "/a", statPrefix: "" }, undefined);
  const ran: string[] = [];
  const early = () => void ran.push("early");
  scope.onDispose(() => ran.push("first"));
  scope.onDispose(early);
  scope.onDispose(() => ran.push("last"));
  scope.forget(early);
  scope.dispose();
  expect(ran).toEqual(["last", "first"]);
});

it("forgets at the end of a scope what was made in it, since a context may outlive its setup", () => {
  const { registry, scope, late } = versions();
  scope.children.push(late("nested") as never);
  let disposed = 0;
  scope.onDispose(() => disposed++);
  scope.dispose();
  scope.dispose();
  expect([scope.children, disposed]).toEqual([[], 1]);
  expect(registry.definition("network/nested")).toBeDefined();
});

/** A registry whose packages say in which version they were set up, and load when they are first named. */
function versions() {
  const code = { serves: "1", next: "1" };
  const faults: unknown[] = [];
  const definitions = new Map<string, Definition>();
  const of = (version: string): Definition => {
    const known = definitions.get(version);
    const setup = () => ({ create: () => ({}), version });
    const definition = known ?? ({ kind: "network", setup } as unknown as Definition);
    definitions.set(version, definition);
    return definition;
  };
  const registry = new Registry(
    (_name, error) => void faults.push(error),
    (_name, isPrepared) => of(isPrepared ? code.next : code.serves),
  );
  registry.contextMaker = () => ({}) as never;
  const scope = new Scope(registry, "outer", { pointer: "", statPrefix: "" }, undefined);
  const late = (name: string) => {
    const ref = { name, package: `network/${name}`, config: {} };
    return registry.create("network", ref, scope.place, undefined, scope.change);
  };
  const runs = (slot: ReturnType<typeof late>) =>
    (slot.current.value as unknown as { version: string }).version;
  const begin = (generation: number, changed: readonly string[]) => {
    code.next = String(generation);
    registry.begin(generation, new Map(changed.map((name) => [`network/${name}`, of("2")])), []);
  };
  return { registry, scope, faults, late, runs, begin, code };
}

it.each([["abort", "1"] as const, ["commit", "2"] as const])(
  "begins a use of what serves with the code that serves while a change is pending, and after %s has version %s",
  (end, after) => {
    const { registry, faults, late, runs, begin, code } = versions();
    late("known");
    begin(2, ["known"]);
    const [known, first] = [late("known"), late("first")];
    expect([known, first].map(runs)).toEqual(["1", "1"]);
    registry[end]();
    if (end === "commit") code.serves = "2";
    expect([known, first, late("known"), late("first")].map(runs)).toEqual(Array(4).fill(after));
    expect(faults).toEqual([]);
  },
);

it("goes on with the code that serves where the pending code refuses a late use, and says so", () => {
  const { registry, faults, late, runs } = versions();
  const broken = { kind: "network", setup: () => undefined } as unknown as Definition;
  late("known");
  registry.begin(3, new Map([["network/known", broken]]), []);
  const slot = late("known");
  registry.commit();
  expect([runs(slot), faults.length]).toEqual(["1", 1]);
});
