import type { FunctionBody } from "./ast.ts";

/** The function whose code is being generated. */
export interface Frame {
  readonly body: FunctionBody;
  /** Name of the JavaScript variable that holds its environment. */
  readonly environment: string;
  /** Temporaries: how many are in use, and were at most. */
  temps: number;
  tempsMax: number;
}

/**
 * The generated JavaScript, written from left to right. Each piece is put on the line of the Lua source that it came from, so
 * that the engine's stack traces and debuggers show lines of the program.
 */
export class Code {
  frame: Frame;
  readonly #out: string[] = [];
  #line = 1;
  #places = 0;

  constructor(frame: Frame) {
    this.frame = frame;
  }

  text(): string {
    return this.#out.join("");
  }

  emit(text: string): void {
    this.#out.push(text);
  }

  /** Leaves a gap for text that is known only later; returns the function that fills it. */
  gap(): (text: string) => void {
    const at = this.#out.push("") - 1;
    return (text) => {
      this.#out[at] = text;
    };
  }

  toLine(line: number): void {
    if (line <= this.#line) return;
    this.#out.push("\n".repeat(line - this.#line));
    this.#line = line;
  }

  temp(): string {
    const { frame } = this;
    frame.temps++;
    if (frame.temps > frame.tempsMax) frame.tempsMax = frame.temps;
    return `$t${frame.temps}`;
  }

  release(): void {
    this.frame.temps--;
  }

  get globals(): string {
    return `${this.frame.environment}.table`;
  }

  /** Arguments for the lookup of a constant key: the key, the hints, and the index of this place's own hint. */
  key(name: string): string {
    return `${JSON.stringify(name)},$h,${this.#places++}`;
  }

  /** How many places look up constant keys, each of which has a hint. */
  get places(): number {
    return this.#places;
  }
}

/** What compiled code takes from the runtime by name. */
export const RUNTIME = (
  "NONE meter tick callable one all run isPending wait hints index field method setIndex append makeTable add sub mul div mod pow unm concat " +
  "length eq truth lt le bound withEnv within levels"
).split(" ");

/** Names that no variable may have in compiled code. */
export const TAKEN: ReadonlySet<string> = new Set([
  ...RUNTIME,
  ...(
    "R undefined NaN Infinity eval arguments await break case catch class const continue debugger default delete do else enum export " +
    "extends false finally for function if implements import in instanceof interface let new null package private protected public " +
    "return static super switch this throw true try typeof var void while with yield"
  ).split(" "),
]);
