import { stop } from "./network.ts";

/** A hook has answered something that is no verdict. `takes`: what it may answer. */
export class NoVerdict extends TypeError {
  constructor(value: unknown, takes: string) {
    super(`it returned ${named(value)}; return ${takes}`);
    this.name = "NoVerdict";
  }
}

/** What hooks of an HTTP filter may answer, as errors tell it. */
export const HTTP_VERDICTS = "nothing, done, reply(…) or hold(…)";

/** Throws unless a network filter's hook may answer this (a promise, say), or, `isSettled`, its promise may come to this. */
export function assertNetworkVerdict(value: unknown, isSettled: boolean): void {
  if (value === undefined || value === stop) return;
  if (isSettled) {
    if (value instanceof Uint8Array) return;
    throw new NoVerdict(value, "nothing, stop or bytes");
  }
  if (typeof (value as PromiseLike<unknown> | null)?.then !== "function")
    throw new NoVerdict(value, "nothing, stop or a promise");
}

function named(value: unknown): string {
  if (typeof value === "string") return JSON.stringify(value.slice(0, 40));
  if (typeof value === "function") return "a function";
  return typeof value === "object" && value !== null
    ? "an object of another kind"
    : String(value).slice(0, 40);
}
