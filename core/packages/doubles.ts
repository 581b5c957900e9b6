import { problem, shortPath } from "../problem.ts";
import type { PackageUnit } from "./package-unit.ts";

/** Of two packages with one name the later one is refused; one that serves comes before all that do not. */
export function setAsideDoubles(units: Iterable<PackageUnit>): void {
  const all = [...units];
  const taken = new Map<string, PackageUnit>();
  for (const unit of all)
    for (const { package: name } of unit.live?.infos ?? []) taken.set(name, unit);
  for (const unit of all) {
    for (const { package: name, kind } of unit.next?.infos ?? []) {
      const other = taken.get(name);
      if (other === undefined || other === unit) {
        taken.set(name, unit);
        continue;
      }
      unit.next = undefined;
      unit.problems = [
        problem(
          `${shortPath(unit.source.entry)}: ${shortPath(other.source.entry)} already is ${kind} filter "${name}"; give one of them another name`,
        ),
      ];
    }
  }
}
