import { type Chunk, latin1Decode, latin1Encode } from "../bytes.ts";
import type { Log } from "../extension.ts";
import { integerArgument, textArgument } from "./arguments.ts";
import { libraryError } from "./error.ts";
import { kind } from "./kinds.ts";
import { Userdata } from "./runtime.ts";
import type { LuaTable } from "./table.ts";

/** A body or a part of it as scripts see it (Envoy's buffer object): the bytes, or those that `setBytes` put in their place. */
export class BufferData extends Userdata {
  #chunk: Chunk | undefined;
  #text: string | undefined = undefined;
  readonly #onSet: ((size: number) => void) | undefined;

  /** `onSet` is called before `setBytes` takes effect, with the new number of bytes; it may throw LuaError to refuse. */
  constructor(metatable: LuaTable, chunk: Chunk, onSet?: (size: number) => void) {
    super(metatable);
    this.#chunk = chunk;
    this.#onSet = onSet;
  }

  get length(): number {
    return this.#text?.length ?? this.#chunk?.length ?? 0;
  }

  /** One char per byte. */
  get text(): string {
    const chunk = this.#chunk;
    if (this.#text === undefined)
      this.#text = chunk === undefined ? "" : latin1Decode(chunk.memory, chunk.at, chunk.end);
    return this.#text;
  }

  set text(text: string) {
    if (this.#chunk === undefined) throw libraryError("setBytes() after the body has gone on");
    this.#onSet?.(text.length);
    this.#chunk.replace(latin1Encode(text));
    this.#text = text;
  }

  /** Called when the bytes are forwarded: the script can read a copy of them, but no longer replace them. */
  release(): void {
    if (this.#chunk === undefined) return;
    void this.text;
    this.#chunk = undefined;
  }
}

export function bufferKind(log: Log): LuaTable {
  return kind(log, "Filters.Common.Lua.BufferWrapper", BufferData, {
    length: (self) => self.length,
    getBytes: (self, args) => {
      const at = integerArgument(args, 1, "getBytes");
      const size = integerArgument(args, 2, "getBytes");
      if (at < 0 || size < 0 || at + size > self.length)
        throw libraryError("index/length must be >= 0 and (index + length) must be <= buffer size");
      return self.text.slice(at, at + size);
    },
    setBytes: (self, args) => {
      const text = textArgument(args, 1, "setBytes");
      self.text = text;
      return text.length;
    },
  });
}
