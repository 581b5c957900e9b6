import type { Definition, Kind, Kinds } from "../extension.ts";
import { TestContext } from "./context.ts";
import { withDefaults } from "./defaults.ts";

declare global {
  /** The test module's own URL, relative to which `places` is given the filter's file. */
  interface ImportMeta {
    url: string;
  }
}

/** Where a package runs: "group", in one isolate with others such as the shipped ones, or "sandbox", in an isolate of its own. */
export interface Place<K extends Kind = Kind> {
  readonly name: "group" | "sandbox";
  /**
   * Makes a fresh use with that config, in which defaults are filled in. Throws what `setup` throws. `cx` is the context to drive
   * it with: its clock, clusters and stats are those of the package, wherever it runs.
   */
  use(config?: unknown): Promise<PlacedUse<K>>;
  /** Ends the isolate. */
  dispose(): void;
}

/** A package that has been set up in a place: its context, and what `setup` has returned. */
export interface PlacedUse<K extends Kind = Kind> {
  readonly cx: TestContext;
  readonly value: Kinds[K];
}

/** A path, or a file's URL. */
export type EntryFile = string | { readonly href: string };

/** Makes places in sandboxes. `tsproxy filter test` puts one into `globalThis`, under the symbol `PLACE_MAKER`. */
export type PlaceMaker = (definition: Definition, entry: string) => Place;
/** The symbol under which `globalThis` has the PlaceMaker. */
export const PLACE_MAKER = Symbol.for("tsproxy.testing.sandbox");

/**
 * Both places of one package, so that a test runs the same in each:
 *
 *     describe.each(places(filter, new URL("./filter.ts", import.meta.url)))("in its $name", (place) => {
 *       afterAll(() => place.dispose());
 *       test("answers 429 when the bucket is empty", async () => {
 *         const { cx, value } = await place.use({ requests: 1 });
 *         const stream = await new TestStream(cx, value).requestHeaders("GET", "/").settled();
 *         …
 *
 * `entry`: the file that the definition is from. In a sandbox every hook answers later: await `settled()`.
 */
export function places<K extends Kind>(definition: Definition<K>, entry: EntryFile): Place<K>[] {
  return [groupPlace(definition), sandboxPlace(definition, entry)];
}

/** A place in the test's own isolate. */
export function groupPlace<K extends Kind>(
  definition: Definition<K>,
  makeContext: () => TestContext = () => new TestContext(),
): Place<K> {
  return {
    name: "group",
    use: async (config = {}) => {
      const cx = makeContext();
      return { cx, value: cx.setup(definition, withDefaults(definition.config, config)) };
    },
    dispose: () => {},
  };
}

/** A place in an isolate of its own, as packages have that a user has dropped in. */
export function sandboxPlace<K extends Kind>(
  definition: Definition<K>,
  entry: EntryFile,
): Place<K> {
  const make = (globalThis as Record<symbol, unknown>)[PLACE_MAKER] as PlaceMaker | undefined;
  if (make === undefined) throw new Error("there are no sandboxes here; run tsproxy filter test");
  return make(definition as Definition, typeof entry === "string" ? entry : entry.href) as Place<K>;
}
