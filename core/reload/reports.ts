import type { Log } from "../logs/log.ts";
import type { PackageUnit } from "../packages/package-unit.ts";
import { formatProblem, type Problem, shortPath } from "../problem.ts";
import type { Edit } from "./edit.ts";
import { type Unwatched, unwatchedMessage } from "./watch.ts";

/** The outcome of a save. */
export type ReloadOutcome =
  | {
      readonly type: "committed";
      readonly generation: number;
      /** Packages with new code, and those that are gone. */
      readonly changed: readonly string[];
      readonly removed: readonly string[];
      readonly config: boolean;
      /** Milliseconds of the slowest build. */
      readonly buildMs: number;
      /** Milliseconds from the first event of the save until all threads served it. */
      readonly ms: number;
    }
  | {
      readonly type: "refused";
      /** A package, or "the config". */
      readonly what: string;
      readonly problems: readonly Problem[];
      /** The generation that goes on serving. */
      readonly rest: string;
    }
  /** The refused edit was undone: the file is again what serves. */
  | { readonly type: "mended"; readonly what: string };

/** The key of a look that failed, among what was told. */
const FAILED = "look";

/** What a reload tells in the log and to `onOutcome`: each refusal once a save, until it is mended. */
export class Reports {
  readonly #log: Log;
  readonly #configFile: string;
  readonly #onOutcome: (outcome: ReloadOutcome) => void;
  /** By what it is about: "config", the id of a package, FAILED. `saved`: one text for the files that it was told of. */
  readonly #told = new Map<string, { readonly text: string; readonly saved: string }>();

  constructor(log: Log, configFile: string, onOutcome: (outcome: ReloadOutcome) => void) {
    this.#log = log;
    this.#configFile = configFile;
    this.#onOutcome = onOutcome;
  }

  /** It serves, or is to be told of again. `what`: "config", or the id of a package. */
  forget(what: string): void {
    this.#told.delete(what);
  }

  /** Tells of a change that serves; `ms`: since the first event of its save. */
  committed(edits: readonly Edit[], generation: number, ms: number): void {
    const names = (type: Edit["type"]) =>
      edits
        .filter((edit) => edit.type === type)
        .map((edit) => (edit.type === "config" ? shortPath(this.#configFile) : edit.unit.name));
    const builds = edits.map((edit) => (edit.type === "code" ? edit.unit.live!.buildMs : 0));
    this.#onOutcome({
      type: "committed",
      generation,
      changed: names("code"),
      removed: names("removal"),
      config: names("config").length > 0,
      buildMs: Math.max(0, ...builds),
      ms,
    });
    const done = [...names("code"), ...names("config")];
    const took = `(generation ${generation}) in ${Math.round(ms)} ms`;
    if (done.length > 0) this.#log.info(`reloaded ${listed(done)} ${took}`);
    if (names("removal").length > 0) this.#log.info(`removed ${listed(names("removal"))} ${took}`);
    for (const edit of edits) if (edit.type === "code") this.#announceHiding(edit.unit);
  }

  #announceHiding(unit: PackageUnit): void {
    for (const info of unit.live?.infos ?? []) {
      const shipped = info.package.replace(/@dropped-in$/, "");
      if (shipped !== info.package)
        this.#log.info(
          `"${info.name}" now means ${shortPath(unit.source.entry)}; the shipped one is still ${shipped}`,
        );
    }
  }

  /**
   * Tells what was refused, and what is no longer, each once. A save that is refused for what the one before was is told of too: its
   * author would wait for it. `config`: undefined where it cannot be judged yet.
   */
  refused(
    units: Iterable<PackageUnit>,
    config: { readonly problems: readonly Problem[]; readonly saved: string } | undefined,
  ): void {
    const tell = (
      key: string,
      name: string,
      { problems, saved }: { readonly problems: readonly Problem[]; readonly saved: string },
      rest: string,
    ) => {
      const text = problems.map(formatProblem).join("\n");
      const told = this.#told.get(key);
      if (text === (told?.text ?? "") && (text === "" || saved === told?.saved)) return;
      if (text === "") {
        this.#told.delete(key);
        this.#onOutcome({ type: "mended", what: name });
        this.#log.info(`${name} is again what serves`);
      } else {
        this.#told.set(key, { text, saved });
        this.#onOutcome({ type: "refused", what: name, problems, rest });
        this.#log.error(`${text}\n${rest}`);
      }
    };
    for (const unit of units) {
      const rest =
        unit.live === undefined
          ? `${unit.name} cannot be used`
          : `${unit.name} stays at generation ${unit.generation}${unit.stoppedWith === undefined ? "" : " until its files or its config change"}`;
      tell(unit.source.id, unit.name, unit, rest);
    }
    if (config !== undefined) tell("config", "the config", config, "the config of before goes on");
  }

  /** A look that could not come to its end. */
  failed(error: unknown): void {
    const reason = String(error);
    if (this.#told.get(FAILED)?.text !== reason)
      this.#log.error({ err: error }, "the reload failed, and is tried again until it does not");
    this.#told.set(FAILED, { text: reason, saved: "" });
  }
  /** One that did. */
  looked(): void {
    this.#told.delete(FAILED);
  }

  unwatched(unwatched: Unwatched | undefined): void {
    if (unwatched !== undefined) this.#log.warn(unwatchedMessage(unwatched));
    else this.#log.info("all folders are watched again: edits are seen at once");
  }
}

function listed(names: readonly string[]): string {
  if (names.length > 6) return `${names.slice(0, 5).join(", ")} and ${names.length - 5} more`;
  return names.length < 2 ? names.join("") : `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
