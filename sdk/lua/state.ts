import type { LuaModule, ScriptPlace } from "../schema.ts";
import { hostFunction, library, textArgument } from "./arguments.ts";
import {
  type BaseHost,
  baseLibrary,
  coroutineLibrary,
  type Environment,
  HostWait,
  leaveCoroutines,
  levels,
  osLibrary,
  withEnv,
  within,
} from "./base-library.ts";
import { compile } from "./compiler.ts";
import { debugLibrary } from "./debug-library.ts";
import {
  chunkId,
  LuaError,
  libraryError,
  registerChunk,
  SyntaxError51,
  sourceUrl,
} from "./error.ts";
import { BadGoto } from "./jumps.ts";
import { bitLibrary, mathLibrary } from "./math-library.ts";
import { meter, spend, startMeter, tick } from "./meter.ts";
import { parse } from "./parser.ts";
import * as runtime from "./runtime.ts";
import { isPending, type LuaFunction, rawSet, setTextMetatable, wait } from "./runtime.ts";
import { LuaTable } from "./table.ts";
import { tableLibrary } from "./table-library.ts";
import { textLibrary } from "./text-library.ts";

export interface StateOptions {
  /** Called with each line that `print` writes. */
  readonly print?: (text: string) => void;
  /** Most milliseconds of one run, far fewer than a sandbox may take for an entry. Default: 100. */
  readonly runMs?: number;
  /** Finds the module that `require` names; undefined: there is none. */
  readonly module?: (name: string) => LuaModule | undefined;
}

/** Cost of loading a chunk, in turns of a loop. */
const LOAD_COST = 8000;

const RUNTIME = { ...runtime, meter, tick, withEnv, within, levels };

/** The state of one program: globals, libraries and modules, none of which another program sees. */
export class LuaState implements BaseHost {
  readonly globals = new LuaTable();
  /** Every name and string literal in what was loaded. A method that is not among them can only be called by a computed name. */
  readonly names = new Set<string>();
  readonly #texts = new LuaTable();
  readonly #options: StateOptions;
  readonly #loaded = new LuaTable();

  constructor(options: StateOptions = {}) {
    this.#options = options;
    const { globals } = this;
    const base = baseLibrary(this);
    for (let at = base.entryFrom(0); at >= 0; at = base.entryFrom(at + 1))
      globals.set(base.keyAt(at), base.valueAt(at));
    globals.set("_G", globals);
    globals.set("_VERSION", "Lua 5.1");
    const libraries = {
      string: textLibrary(),
      table: tableLibrary(),
      math: mathLibrary(),
      bit: bitLibrary(),
      coroutine: coroutineLibrary(),
      os: osLibrary(),
      debug: debugLibrary(),
    };
    for (const [name, table] of Object.entries(libraries)) {
      globals.set(name, table);
      this.#loaded.set(name, table);
    }
    this.#loaded.set("_G", globals);
    globals.set("jit", jitLibrary());
    const packages = new LuaTable();
    packages.set("loaded", this.#loaded);
    packages.set("path", "./?.lua");
    packages.set("cpath", "");
    packages.set("preload", new LuaTable());
    globals.set("package", packages);
    this.#loaded.set("package", packages);
    globals.set(
      "require",
      hostFunction("require", (...args) =>
        this.#moduleOf(textArgument(args, 1, "require"), packages),
      ),
    );
    this.#texts.set("__index", libraries.string);
  }

  print(text: string): void {
    this.#options.print?.(text);
  }

  /** Compiles a chunk, which `call` runs. `name`: the source itself, `@file` or `=name`. Throws LuaError. */
  load(source: string, name: string, place?: ScriptPlace): LuaFunction {
    this.enter();
    return this.compile(source, name, this.globals, place);
  }

  /** The same for `load` and `require` of a program, within its run. */
  compile(source: string, name: string, environment: LuaTable, place?: ScriptPlace): LuaFunction {
    const chunk = chunkId(name);
    spend(LOAD_COST + source.length * 16);
    if (source.startsWith("\x1b")) throw new LuaError(`attempt to load chunk with wrong mode`);
    let code: string;
    try {
      const program = parse(source, chunk);
      for (const name of program.names.used) this.names.add(name);
      code = compile(program);
    } catch (error) {
      if (error instanceof SyntaxError51) throw new LuaError(error.message);
      if (error instanceof BadGoto) throw new LuaError(`${chunk}:${error.line}: ${error.message}`);
      throw error;
    }
    const url = `${code}\n//# sourceURL=${sourceUrl(registerChunk(chunk, code), place)}`;
    // biome-ignore lint/security/noGlobalEval: the compiler's own text, in the isolate of the program.
    const make = globalThis.eval(url) as (from: unknown, environment: Environment) => LuaFunction;
    return withEnv(environment, (cell) => make(RUNTIME, cell));
  }

  /** Begins a run, or resumes one that has waited: makes this state the current one and starts its time limit anew. */
  enter(): void {
    setTextMetatable(this.#texts);
    leaveCoroutines();
    startMeter(this.#options.runMs ?? 100);
  }

  /** Calls a function in a run of its own, which must not wait, and returns all its values. Throws LuaError or Stopped. */
  call(value: unknown, ...args: unknown[]): readonly unknown[] {
    this.enter();
    return runtime.all(runtime.callable(value)(...args));
  }

  #moduleOf(name: string, packages: LuaTable): unknown {
    const before = this.#loaded.get(name);
    if (before === LOADING) throw libraryError(`loop or previous error loading module '${name}'`);
    if (runtime.truth(before)) return before;
    const preload = packages.getText("preload");
    const preloaded = preload instanceof LuaTable ? preload.get(name) : undefined;
    let loader: unknown = preloaded;
    if (loader === undefined) {
      const found = this.#options.module?.(name);
      if (found === undefined) {
        const file = `./${name.replaceAll(".", "/")}.lua`;
        throw libraryError(
          `module '${name}' not found:\n\tno field package.preload['${name}']\n\tno file '${file}'`,
        );
      }
      loader = this.compile(found.text, `@${found.file}`, this.globals, found.place);
    }
    this.#loaded.set(name, LOADING);
    const result = runtime.callable(loader)(name);
    return isPending(result) ? this.#waitLoaded(name, result) : this.#keep(name, result);
  }

  *#waitLoaded(name: string, pending: unknown): Generator<unknown, unknown, unknown> {
    return this.#keep(name, yield* wait(pending));
  }

  #keep(name: string, result: unknown): unknown {
    const value = runtime.one(result);
    if (value !== undefined) rawSet(this.#loaded, name, value);
    else if (this.#loaded.get(name) === LOADING) this.#loaded.set(name, true);
    return this.#loaded.get(name);
  }
}

/** LuaJIT's `jit` table, for programs that ask for the version or platform. Its switches do nothing. */
function jitLibrary(): LuaTable {
  const nothing = (): typeof runtime.NONE => runtime.NONE;
  const made = library({ on: nothing, off: nothing, flush: nothing, status: () => true });
  made.set("version", "LuaJIT 2.1");
  made.set("version_num", 20_199);
  made.set("os", "Linux");
  made.set("arch", "x64");
  return made;
}

/** Marks a module that is being loaded. */
const LOADING = new runtime.Userdata(undefined);

export { HostWait };
