import { fstatSync, openSync, readSync } from "node:fs";
import type { CodeFile, FiledCode } from "../protocol.ts";

/**
 * Code of the npm package. Most configs need a third of it, and memory that is not written costs nothing. The files stay open, so that
 * code of this version can be read once another one is installed in its place.
 */
export function openCode(path: string): CodeFile & { readonly size: number } {
  const fd = openSync(path, "r");
  const { mtimeMs, size } = fstatSync(fd);
  return { fd, path, mtimeMs, size };
}

const STATE_BYTES = 4;

/** Those parts of the file, by offset and size, with one piece of memory for all. */
export function filedCode(
  file: CodeFile,
  parts: readonly { readonly at: number; readonly size: number }[],
): FiledCode[] {
  const end = Math.max(0, ...parts.map(({ at, size }) => at + size));
  const memory = new SharedArrayBuffer(parts.length * STATE_BYTES + end);
  return parts.map(({ at, size }, k) => ({
    file: { fd: file.fd, path: file.path, mtimeMs: file.mtimeMs },
    at,
    bytes: new Uint8Array(memory, parts.length * STATE_BYTES + at, size),
    state: new Int32Array(memory, k * STATE_BYTES, 1),
  }));
}

/** Its bytes, which stay in memory from now on. Two threads may read the same ones at once. */
export function keepFiled(code: FiledCode): Uint8Array {
  const { bytes, state } = code;
  if (Atomics.load(state, 0) === 0) {
    read(code, bytes);
    Atomics.store(state, 0, 1);
  }
  return bytes;
}

/** Its bytes, for one look. */
export function peekFiled(code: FiledCode): Uint8Array {
  const { bytes, state } = code;
  if (Atomics.load(state, 0) === 1) return bytes;
  const seen = new Uint8Array(bytes.length);
  read(code, seen);
  return seen;
}

function read({ file, at }: FiledCode, to: Uint8Array): void {
  const { fd, path, mtimeMs } = file;
  const isSame = fstatSync(fd).mtimeMs === mtimeMs;
  if (!isSame || readSync(fd, to, 0, to.length, at) < to.length)
    throw new Error(`${path} was written over while the proxy runs; restart it`);
}
