import { CellHeap } from "@tsproxy/sdk";

/** Bytes of shared cells of one package. They count against the memory limit of every isolate that they are shared with. */
const BYTES = 1024 * 1024;
const byPackage = new Map<string, SharedArrayBuffer>();

/**
 * Memory for the shared cells (`cx.shared`) of a sandboxed package. Each package has its own, so that it cannot spoil those of others;
 * all workers and generations share it, so that counts are exact and outlive a reload. Undefined: the code asks for no cells.
 */
export function sandboxCells(packageName: string, code: string): SharedArrayBuffer | undefined {
  if (!["shared", "cell", "labelled"].some((word) => code.includes(word))) return undefined;
  let memory = byPackage.get(packageName);
  if (memory === undefined) {
    memory = new SharedArrayBuffer(BYTES);
    byPackage.set(packageName, memory);
  }
  return memory;
}

/** Those of all packages. */
export function sandboxHeaps(): readonly CellHeap[] {
  return [...byPackage.values()].map((memory) => new CellHeap(memory));
}
