/** Counts against the memory of every isolate that it is shared with. */
const BYTES = 1024 * 1024;
const byPackage = new Map<string, SharedArrayBuffer>();

/**
 * Memory for the shared cells of a sandboxed package: its own, so that what it does to it harms nobody else; and the same one for
 * all workers and versions, so that counts outlive a reload. Undefined: its code asks for no cells.
 */
export function sandboxCells(packageName: string, code: string): SharedArrayBuffer | undefined {
  if (!/\b(shared|cell)\b/.test(code)) return undefined;
  let memory = byPackage.get(packageName);
  if (memory === undefined) {
    memory = new SharedArrayBuffer(BYTES);
    byPackage.set(packageName, memory);
  }
  return memory;
}
