import path from "node:path";
import { type Problem, problem } from "../problem.ts";
import type { PackageUnit } from "./package-unit.ts";

const QUARANTINED = problem(
  "the process before ended inside it, so it is not entered: its failure policy answers until its code or config is another one",
);

/** One package as `filter list` and admin show it. */
export interface PackageState {
  readonly package: string;
  readonly kind: string;
  readonly name: string;
  readonly origin: "shipped" | "dropped-in";
  readonly folder: string;
  /** `builtin`, or its sandbox. */
  readonly group: string;
  readonly types: readonly string[];
  /** `failed`: its newest files are refused, and its previous generation serves, if there is one. */
  readonly state: "active" | "failed";
  /** The generation that brought its code. 0: none of its code has served yet. */
  readonly generation: number;
  readonly builtAt: string;
  readonly problems: readonly Problem[];
}

/** The state of each package that the unit defines. */
export function statesOf(unit: PackageUnit): PackageState[] {
  const { origin, folder, id } = unit.source;
  const { generation } = unit;
  const shown = unit.live ?? unit.next;
  const problems = unit.isQuarantined ? [QUARANTINED, ...unit.problems] : unit.problems;
  const state = problems.length > 0 || unit.live === undefined ? "failed" : "active";
  const common = {
    origin,
    folder,
    generation,
    state,
    problems,
    builtAt: shown?.builtAt.toISOString() ?? "",
  } as const;
  if (shown !== undefined)
    return shown.infos.map(({ package: name, kind, name: own, types }) => ({
      ...common,
      package: name,
      kind,
      name: own,
      types,
      group: shown.group,
    }));
  // It was never described, so its kind is known only if it is shipped: from the folder.
  const [kind = "", name = ""] = origin === "shipped" ? id.split("/") : ["", path.basename(id)];
  return [{ ...common, package: unit.name, kind, name, types: [], group: "" }];
}
