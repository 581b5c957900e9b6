import type { PackageUnit } from "../packages/package-unit.ts";
import type { Change } from "./stage.ts";

/** An edit on disk that does not serve yet. */
export type Edit =
  | { readonly type: "code"; readonly unit: PackageUnit }
  | { readonly type: "removal"; readonly unit: PackageUnit }
  | {
      readonly type: "config";
      readonly text: string;
      readonly named: string;
      /** Contents of the files that it names, in the place of those on disk. */
      readonly given?: ReadonlyMap<string, Buffer>;
    };

/** What the threads are asked to take up with these edits. */
export function changeOf(edits: readonly Edit[], generation: number): Omit<Change, "config"> {
  const modules = edits.flatMap((edit) => (edit.type === "code" ? edit.unit.next!.modules : []));
  const kept = new Set(
    edits.flatMap((edit) =>
      edit.type === "code" ? edit.unit.next!.infos.map((info) => info.package) : [],
    ),
  );
  const before = edits.flatMap((edit) =>
    edit.type === "config" ? [] : (edit.unit.live?.infos ?? []),
  );
  const removed = before.map((info) => info.package).filter((name) => !kept.has(name));
  return { generation, modules, removed };
}
