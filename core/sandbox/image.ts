import type ivmTypes from "isolated-vm";
import { setIsolateFlags } from "../isolate-flags.ts";
import { isolatedVm } from "../own-files.ts";
import { textOf } from "../packages/module-code.ts";
import type { SharedCode } from "../protocol.ts";

const ivm = isolatedVm() as typeof ivmTypes;

/** File name of the image's script in stack traces. */
export const IMAGE_FILENAME = "tsproxy:sandbox";

/** What every sandboxed isolate starts with, the SDK and the prelude: as a script (core/inside/sandbox/image.ts), or as its V8 snapshot. */
export class SandboxImage {
  readonly #code: SharedCode;
  /** Source of a module that re-exports the SDK of the image; "" until it is first needed. */
  sdkModule = "";
  readonly #ask: (() => void) | undefined;
  #asked = false;
  #snapshot: ivmTypes.ExternalCopy<ArrayBuffer> | undefined = undefined;

  /** `ask` is called once and should lead to a call of `use` with a snapshot. Absent: there will be no snapshot. */
  constructor(code: SharedCode, ask?: () => void) {
    this.#code = code;
    this.#ask = ask;
  }

  get code(): string {
    return textOf({ code: this.#code });
  }

  /** An isolate made from the snapshot takes 6 ms, one that runs the script 21. */
  get snapshot(): ivmTypes.ExternalCopy<ArrayBuffer> | undefined {
    return this.#snapshot;
  }

  use(snapshot: ArrayBuffer): void {
    this.#snapshot = new ivm.ExternalCopy(snapshot);
  }

  /** True if a snapshot will come and is worth waiting for; the first call asks for it. */
  awaits(): boolean {
    if (this.#snapshot !== undefined || this.#ask === undefined) return false;
    if (!this.#asked) this.#ask();
    this.#asked = true;
    return true;
  }
}

/** Makes the snapshot (2.5 MB) in 46 ms of this thread. It can be used in this process only. */
export function snapshotOf(code: SharedCode): ArrayBuffer {
  const text = textOf({ code });
  setIsolateFlags();
  return ivm.Isolate.createSnapshot([{ code: text, filename: IMAGE_FILENAME }]).copy();
}
