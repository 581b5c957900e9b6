import { type Static, Type } from "./schema.ts";

/** Envoy's `type.v3.Percent`. */
export const Percent = Type.Object({
  value: Type.Number({ default: 0, minimum: 0, maximum: 100 }),
});
export type Percent = Static<typeof Percent>;

/** The duration, longer by a random part of that percentage of it, so that what began together does not end together. */
export function jittered(ms: number, percent: Percent | undefined): number {
  if (percent === undefined) return ms;
  return ms + Math.floor(Math.random() * Math.ceil((ms * percent.value) / 100));
}
