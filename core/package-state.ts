import path from "node:path";
import type { PackageUnit } from "./package-unit.ts";
import { type Problem, problem } from "./problem.ts";

const QUARANTINED = problem(
  "the process before ended inside it, so it is not entered: its failure policy answers until its code is another one",
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
  /** `failed`: its newest files are refused. What serves is its generation before, if there is one. */
  readonly state: "active" | "failed";
  /** 0: nothing of it has ever served. */
  readonly generation: number;
  readonly builtAt: string;
  readonly problems: readonly Problem[];
}

export function statesOf(unit: PackageUnit): PackageState[] {
  const { origin, folder, id } = unit.source;
  const { generation } = unit;
  const shown = unit.live ?? unit.next;
  const isQuarantined = shown?.modules.some((module) => module.quarantined) === true;
  const problems = isQuarantined ? [QUARANTINED, ...unit.problems] : unit.problems;
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
  // Nobody has ever got to know its kind, but for those that the folder tells.
  const [kind = "", name = ""] = origin === "shipped" ? id.split("/") : ["", path.basename(id)];
  return [{ ...common, package: unit.name, kind, name, types: [], group: "" }];
}
