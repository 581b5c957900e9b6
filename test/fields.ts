// npm run fields [-- --json | -- --missing]: how many of the fields of Envoy's protobuf messages each package implements.

import { descriptor } from "../core/config/descriptor.ts";
import { fieldCoverage } from "../core/config/field-coverage.ts";
import { Catalog } from "../core/packages/catalog.ts";

const catalog = await Catalog.open([]);
const units = await catalog.units([]);
catalog.dispose();
const packages = units.flatMap((unit) => unit.next ?? []).flatMap(({ infos }) => infos);
const all = fieldCoverage(packages, descriptor());

if (process.argv.includes("--json")) console.log(JSON.stringify(all, undefined, 1));
else
  for (const { package: name, implemented, missing, messages } of all) {
    const total = implemented.length + missing.length;
    const percent = total === 0 ? 100 : Math.floor((100 * implemented.length) / total);
    console.log(
      `${name.padEnd(40)} ${String(implemented.length).padStart(4)} of ${String(total).padStart(4)} fields (${percent} %) of ${messages.length} messages`,
    );
    if (process.argv.includes("--missing"))
      for (const field of missing) console.log(`    ${field}`);
  }
