import type ivmTypes from "isolated-vm";
import { textOf } from "../module-code.ts";
import { isolatedVm } from "../own-files.ts";
import type { SharedCode } from "../protocol.ts";

const ivm = isolatedVm() as typeof ivmTypes;

/** The filename of the image in stacks. */
export const IMAGE_FILENAME = "tsproxy:sandbox";

/** What every sandbox begins with: the script of core/inside/sandbox/image.ts, or a snapshot of what it makes. */
export class SandboxImage {
  readonly #code: SharedCode;
  /** Source of a module that exports what the SDK in the image has; "" until somebody has looked. */
  sdkModule = "";
  readonly #ask: (() => void) | undefined;
  #asked = false;
  #snapshot: ivmTypes.ExternalCopy<ArrayBuffer> | undefined = undefined;

  /** `ask`: called once, for a snapshot that `use` is to get. Absent: none will come. */
  constructor(code: SharedCode, ask?: () => void) {
    this.#code = code;
    this.#ask = ask;
  }

  get code(): string {
    return textOf({ code: this.#code });
  }

  /** An isolate made from it takes 6 ms, one that runs the script 21. */
  get snapshot(): ivmTypes.ExternalCopy<ArrayBuffer> | undefined {
    return this.#snapshot;
  }

  use(snapshot: ArrayBuffer): void {
    this.#snapshot = new ivm.ExternalCopy(snapshot);
  }

  /** True: a snapshot will come, and it is worth waiting for. */
  awaits(): boolean {
    if (this.#snapshot !== undefined || this.#ask === undefined) return false;
    if (!this.#asked) this.#ask();
    this.#asked = true;
    return true;
  }
}

/** Takes 46 ms of this thread. The snapshot (2.5 MB) fits isolates of this process alone. */
export function snapshotOf(code: SharedCode): ArrayBuffer {
  const text = textOf({ code });
  return ivm.Isolate.createSnapshot([{ code: text, filename: IMAGE_FILENAME }]).copy();
}
