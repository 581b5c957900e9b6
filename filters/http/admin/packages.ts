import { type Answer, json, text } from "./answer.ts";
import type { CoreData, PackageError, PackageSnapshot } from "./core-data.ts";
import type { Query } from "./query.ts";

/** `/filters`: what is loaded, and what went wrong with the last save. Our own; Envoy has no such page. */
export async function packages(query: Query, core: CoreData): Promise<Answer> {
  const matches = query.matcher("filter");
  const list = [...(await core.packages())]
    .filter((p) => matches === undefined || matches(p.package) || matches(p.name))
    .sort((a, b) => (a.package < b.package ? -1 : a.package > b.package ? 1 : 0));
  if (query.wantsJson) return json({ filters: list.map(packageJson) });

  const width = Math.max(0, ...list.map((p) => p.package.length));
  const nameWidth = Math.max(0, ...list.map((p) => p.name.length));
  return text(list.map((p) => packageText(p, width, nameWidth)));
}

function packageText(p: PackageSnapshot, width: number, nameWidth: number): string {
  const line =
    `${p.package.padEnd(width)}  ${p.name.padEnd(nameWidth)}  ${p.state.padEnd(6)}  ` +
    `generation ${p.generation}, ${p.uses} ${p.uses === 1 ? "use" : "uses"}, ${p.origin}, group ${p.group}${faults(p)}\n`;
  const open = (p.open ?? []).map((place) => `    not entered now: ${place}\n`);
  return [line, ...open, ...(p.errors ?? []).map(errorText)].join("");
}

function errorText({ file, line, column, message, frame = "" }: PackageError): string {
  const place = [file, line, column].filter((part) => part !== undefined).join(":");
  const lines = [place === "" ? message : `${place}: ${message}`, ...frame.split("\n")];
  return lines.map((part) => (part === "" ? "" : `    ${part}\n`)).join("");
}

function faults({ faults = 0 }: PackageSnapshot): string {
  return faults === 0 ? "" : `, ${faults} ${faults === 1 ? "fault" : "faults"}`;
}

function packageJson(p: PackageSnapshot): unknown {
  return {
    package: p.package,
    kind: p.kind,
    name: p.name,
    origin: p.origin,
    group: p.group,
    generation: p.generation,
    state: p.state,
    uses: p.uses,
    ...((p.faults ?? 0) > 0 && { faults: p.faults }),
    ...(p.open !== undefined && { open: p.open }),
    built_at: p.builtAt,
    ...(p.errors !== undefined && { errors: p.errors }),
  };
}
