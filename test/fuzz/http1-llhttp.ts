// node test/fuzz/http1-llhttp.ts [cases] [seed]: our HTTP/1.1 parser against Node's, on bytes good and bad. Prints what
// differs and is listed, by name; stops at the first difference that is not.
import { fileURLToPath } from "node:url";
import { DIFFERENCES } from "./http1-differences.ts";
import { generate } from "./http1-generate.ts";
import { compare, nameOf } from "./http1-judge.ts";
import { Random } from "./random.ts";

export interface Tally {
  readonly cases: number;
  equal: number;
  /** Listed differences by name. */
  readonly listed: Map<string, number>;
  /** The first difference that is not listed. */
  unlisted: string | undefined;
}

export function fuzz(cases: number, seed: number): Tally {
  const random = new Random(seed);
  const listed = new Map(DIFFERENCES.map(({ name }) => [name, 0]));
  const tally: Tally = { cases, equal: 0, listed, unlisted: undefined };
  for (let k = 0; k < cases; k++) {
    const generated = generate(random);
    const difference = compare(generated);
    if (difference === undefined) {
      tally.equal++;
      continue;
    }
    const name = nameOf(difference);
    if (name === undefined) {
      tally.unlisted = JSON.stringify({ case: k, seed, generated, difference }, undefined, 1);
      return tally;
    }
    listed.set(name, listed.get(name)! + 1);
  }
  return tally;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const cases = Number(process.argv[2] ?? 1_000_000);
  const seed = Number(process.argv[3] ?? 1);
  const started = performance.now();
  const tally = fuzz(cases, seed);
  for (const [name, count] of tally.listed) console.log(`${String(count).padStart(8)}  ${name}`);
  console.log(
    `${String(tally.equal).padStart(8)}  the same, of ${cases}, in ${Math.round(performance.now() - started)} ms`,
  );
  if (tally.unlisted !== undefined) {
    console.error(`not listed: ${tally.unlisted}`);
    process.exit(1);
  }
}
