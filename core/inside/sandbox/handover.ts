/** Nested deeper than this is nothing that JSON could carry: an object that holds itself, most likely. */
const DEPTH_MAX = 100;

/**
 * What one use leaves to the next generation, as the JSON that carries it to the next isolate. Throws where JSON would leave something
 * out or turn it into something else (a Map into `{}`), naming the place and what to leave instead.
 */
export function handedOver(state: unknown): unknown {
  check(state, "", 0);
  return JSON.parse(JSON.stringify(state));
}

function check(value: unknown, path: string, depth: number): void {
  if (value === null || value === undefined) return;
  if (typeof value === "function" || typeof value === "symbol" || typeof value === "bigint")
    throw new Error(misfit(path, `a ${typeof value}`));
  if (typeof value === "number" && !Number.isFinite(value))
    throw new Error(misfit(path, String(value)));
  if (typeof value !== "object") return;
  if (depth > DEPTH_MAX) throw new Error(misfit(path, "too deeply nested"));
  const prototype = Object.getPrototypeOf(value) as object | null;
  if (!Array.isArray(value) && prototype !== Object.prototype && prototype !== null)
    throw new Error(misfit(path, `a ${value.constructor?.name ?? "class"}`));
  for (const [key, inner] of Object.entries(value))
    check(inner, path === "" ? key : `${path}.${key}`, depth + 1);
}

function misfit(path: string, what: string): string {
  const where = path === "" ? "its state" : `"${path}" of its state`;
  return `${where} is ${what}; only what JSON can carry passes to the next isolate, such as [...map]`;
}
