/**
 * Limits for single calls of built-ins: one that loops or allocates inside V8 can be stopped neither by the sandbox's time limit nor
 * by its memory limit before it returns. Ordinary code never comes near these limits.
 */
const ELEMENTS_MAX = 1 << 20;
const TEXT_MAX = 1 << 24;
const JSON_MAX = 1 << 23;
const BUFFER_MAX = 1 << 25;

/** Replaces built-ins by bounded ones. Called before a package's code is evaluated. */
export function installBounds(): void {
  boundArrays();
  boundBuffers();
  boundTypedArrays();
  boundText();
  // WebAssembly memory is outside the isolate's limit, and Atomics.wait would stop the worker's thread.
  for (const name of ["WebAssembly", "SharedArrayBuffer", "Atomics"])
    Reflect.deleteProperty(globalThis, name);
}

type Method = (this: unknown, ...args: never[]) => unknown;

function refuse(what: string): never {
  throw new RangeError(`${what} is more than a sandboxed filter may do at once`);
}

/** Calls `check` before a method, with the same arguments; `check` throws to refuse the call. */
function guard(
  owner: object,
  name: string,
  check: (self: unknown, args: readonly unknown[]) => void,
): void {
  const original = (owner as Record<string, unknown>)[name];
  if (typeof original !== "function") return;
  const method = original as Method;
  const guarded = {
    [name](this: unknown, ...args: never[]): unknown {
      check(this, args);
      return Reflect.apply(method, this, args);
    },
  }[name]!;
  Object.defineProperty(guarded, "length", { value: method.length, configurable: true });
  Object.defineProperty(owner, name, { value: guarded, writable: true, configurable: true });
}

const lengthOf = (value: unknown): number =>
  typeof value === "string" || (typeof value === "object" && value !== null)
    ? Number((value as { length?: unknown }).length ?? 0)
    : 0;

function boundArrays(): void {
  // A sparse array of 4 billion elements costs nothing to create and minutes to walk.
  const walking = [
    "concat copyWithin every fill filter find findIndex findLast findLastIndex flat flatMap forEach includes indexOf",
    "join lastIndexOf map reduce reduceRight reverse shift slice some sort splice toLocaleString toReversed toSorted",
    "toSpliced toString unshift with",
  ];
  for (const name of walking.join(" ").split(" ")) {
    guard(Array.prototype, name, (self) => {
      if (lengthOf(self) > ELEMENTS_MAX) refuse(`${name} of ${lengthOf(self)} elements`);
    });
  }
  guard(Array, "from", (_, [source]) => {
    if (lengthOf(source) > ELEMENTS_MAX) refuse(`an array of ${lengthOf(source)} elements`);
  });
  const RealArray = Array;
  const BoundedArray = function (this: unknown, ...args: unknown[]): unknown {
    if (args.length === 1 && typeof args[0] === "number" && args[0] > ELEMENTS_MAX) {
      refuse(`an array of ${args[0]} elements`);
    }
    const target = new.target as unknown;
    return Reflect.construct(
      RealArray,
      args,
      typeof target === "function" && target !== BoundedArray ? target : RealArray,
    );
  };
  for (const key of Reflect.ownKeys(RealArray)) {
    Object.defineProperty(BoundedArray, key, Object.getOwnPropertyDescriptor(RealArray, key)!);
  }
  // The prototype keeps its constructor: with another one every map and slice leaves V8's fast path.
  Object.defineProperty(globalThis, "Array", {
    value: BoundedArray,
    writable: true,
    configurable: true,
  });
}

/** V8 clears or copies a buffer in one go: a GiB of pages that are touched first takes a busy machine longer than the time box. */
function boundBuffers(): void {
  const RealBuffer = ArrayBuffer;
  const check = (size: unknown): void => {
    if (Number(size) > BUFFER_MAX) refuse(`a buffer of ${Number(size)} bytes`);
  };
  const BoundedBuffer = function (this: unknown, ...args: unknown[]): unknown {
    check(args[0]);
    check((args[1] as { maxByteLength?: unknown } | undefined)?.maxByteLength);
    const target = new.target as unknown;
    if (target === undefined) return Reflect.apply(RealBuffer, undefined, args);
    return Reflect.construct(
      RealBuffer,
      args,
      typeof target === "function" && target !== BoundedBuffer ? target : RealBuffer,
    );
  };
  for (const key of Reflect.ownKeys(RealBuffer))
    Object.defineProperty(BoundedBuffer, key, Object.getOwnPropertyDescriptor(RealBuffer, key)!);
  Object.defineProperty(globalThis, "ArrayBuffer", {
    value: BoundedBuffer,
    writable: true,
    configurable: true,
  });
  Object.defineProperty(RealBuffer.prototype, "constructor", {
    value: BoundedBuffer,
    writable: true,
    configurable: true,
  });
  for (const name of ["transfer", "transferToFixedLength"])
    guard(RealBuffer.prototype, name, (_, [size]) => check(size));
}

function boundTypedArrays(): void {
  const prototype = Object.getPrototypeOf(Uint8Array.prototype) as object;
  for (const name of ["sort", "toSorted", "join", "toString", "toLocaleString"]) {
    guard(prototype, name, (self) => {
      if (lengthOf(self) > ELEMENTS_MAX) refuse(`${name} of ${lengthOf(self)} elements`);
    });
  }
  guard(Object.getPrototypeOf(Uint8Array) as object, "from", (_, [source]) => {
    if (lengthOf(source) > BUFFER_MAX) refuse(`an array of ${lengthOf(source)} elements`);
  });
}

function boundText(): void {
  guard(String.prototype, "repeat", (self, [count]) => {
    const size = String(self).length * Number(count);
    if (size > TEXT_MAX) refuse(`a text of ${size} chars`);
  });
  for (const name of ["padStart", "padEnd"]) {
    guard(String.prototype, name, (_, [size]) => {
      if (Number(size) > TEXT_MAX) refuse(`a text of ${Number(size)} chars`);
    });
  }
  for (const name of ["split", "replaceAll", "normalize", "toWellFormed"]) {
    guard(String.prototype, name, (self) => {
      if (lengthOf(self) > TEXT_MAX) refuse(`${name} of ${lengthOf(self)} chars`);
    });
  }
  guard(JSON, "parse", (_, [text]) => {
    if (lengthOf(text) > JSON_MAX) refuse(`JSON of ${lengthOf(text)} chars`);
  });
}
