import type { Problem } from "../problem.ts";

/** Places of the config that are in their failure policy for a while, because their code has failed too often. */
export class OpenBreakers {
  readonly #until = new Map<string, Map<string, number>>();

  /** The breaker of `found`'s place has opened, or that of the whole package. */
  open(packageName: string, found: Problem, ms: number): void {
    const now = performance.now();
    const places = this.#until.get(packageName) ?? new Map<string, number>();
    for (const [place, until] of places) if (until <= now) places.delete(place);
    places.set(placeText(found), now + ms);
    this.#until.set(packageName, places);
  }

  /** The places that are not entered now, as in messages; `*`: all of them. */
  of(packageName: string): string[] {
    const now = performance.now();
    const places = [...(this.#until.get(packageName) ?? [])];
    return places.filter(([, until]) => until > now).map(([place]) => place);
  }
}

function placeText({ file, line, column, path }: Problem): string {
  if (file === "") return "*";
  return `${file}:${line}:${column}${path === "" ? "" : `: ${path}`}`;
}
