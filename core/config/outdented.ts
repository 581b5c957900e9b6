/** A text with some of its lines moved to the right. */
export interface Moved {
  readonly text: string;
  /** Where the character at that offset of `text` stood before. */
  before(offset: number): number;
}

/**
 * YAML wants the further lines of brackets and quoted strings further in than the key that they belong to; Envoy's parser takes
 * them anywhere, down to the first column. This moves such lines to the column where the bracket or the string begins: blanks
 * there mean nothing. Undefined: there is no such line before the first bracket or string that does not end.
 */
export function indentOutdented(text: string): Moved | undefined {
  return new Outdented(text).moved();
}

const BLANKS = /[ \t]*/y;
const NEXT = /(?:[ \t\r\n]|(?<=[\s])#[^\n]*)*/y;
/** A tag, an anchor or an alias: what it stands before follows after a blank. */
const PROPERTY = /[!&*][^\s,[\]{}]*/y;
const DOUBLE = /"(?:[^"\\]|\\[\s\S])*"/y;
const SINGLE = /'(?:[^']|'')*'/y;
const PLAIN = /(?:[^\s:#]|:(?=\S)|(?<=\S)#|[ \t]+(?=[^\s#:]|:\S))+/y;
const PLAIN_IN_FLOW = /(?:[^\s:#,[\]{}]|:(?=[^\s,[\]{}])|(?<=\S)#)+/y;
const BLOCK_SCALAR = /[|>][+\-0-9]*[ \t]*(?:#[^\n]*)?\r?(?=\n|$)/y;
const COLON = /[ \t]*:(?=\s|$)/y;
const END_OF_DOCUMENT = /^(?:---|\.\.\.)(?=\s|$)/m;

class Outdented {
  readonly #text: string;
  /** Beginnings of lines that are moved, and by how much. */
  readonly #moves: Move[] = [];
  /** What is read next. */
  #at = 0;
  /** The column of the innermost key or dash: what is further in belongs to it. */
  #column = -1;

  constructor(text: string) {
    this.#text = text;
  }

  moved(): Moved | undefined {
    while (this.#at < this.#text.length && this.#line());
    return this.#moves.length === 0 ? undefined : new MovedLines(this.#text, this.#moves);
  }

  /** Reads from the beginning of a line to the end of the line on which all has ended that began there. False: it does not end. */
  #line(): boolean {
    const start = this.#at;
    for (;;) {
      this.#skip(BLANKS);
      const at = this.#at;
      const next = this.#text[at];
      if (next === undefined || next === "\n" || next === "\r" || next === "#") break;
      if ("-?:".includes(next) && /\s|^$/.test(this.#text[at + 1] ?? "")) {
        if (next !== ":") this.#column = at - start;
        this.#at++;
      } else if (next === "[" || next === "{" || next === '"' || next === "'") {
        if (!this.#continued(at - start)) return false;
        this.#key(at - start);
      } else if ((next === "|" || next === ">") && this.#skip(BLOCK_SCALAR)) {
        this.#skipFurtherIn();
        return true;
      } else if (!this.#skip(PROPERTY)) {
        if (!this.#skip(PLAIN)) this.#at++;
        else if (!this.#key(at - start)) {
          this.#toNextLine();
          this.#skipFurtherIn();
          return true;
        }
      }
    }
    this.#toNextLine();
    return true;
  }

  /** Whether what ends here is a key: a colon follows. */
  #key(column: number): boolean {
    COLON.lastIndex = this.#at;
    const isKey = COLON.test(this.#text);
    if (isKey) this.#column = column;
    return isKey;
  }

  /** Skips lines that go on with a word or block scalar of a key or dash. */
  #skipFurtherIn(): void {
    while (this.#column >= 0 && this.#at < this.#text.length) {
      const start = this.#at;
      this.#skip(BLANKS);
      const isEmpty = this.#text[this.#at] === "\n" || this.#text[this.#at] === "\r";
      if (!isEmpty && this.#at - start <= this.#column) {
        this.#at = start;
        return;
      }
      this.#toNextLine();
    }
  }

  /** Reads the brackets or the quoted string that begin here; their further lines begin at `column`. False: they do not end. */
  #continued(column: number): boolean {
    const start = this.#at;
    if (!(this.#skip(DOUBLE) || this.#skip(SINGLE) || this.#flow())) return false;
    if (END_OF_DOCUMENT.test(this.#text.slice(start + 1, this.#at))) return false;
    for (let line = this.#text.indexOf("\n", start); line >= 0 && line < this.#at; ) {
      const at = line + 1;
      let indented = 0;
      while (this.#text[at + indented] === " ") indented++;
      if (indented < column) this.#moves.push({ at, by: column - indented });
      line = this.#text.indexOf("\n", at);
    }
    return true;
  }

  #flow(): boolean {
    let depth = 0;
    do {
      this.#skip(NEXT);
      const next = this.#text[this.#at];
      if (next === undefined) return false;
      if (next === "[" || next === "{") depth++;
      if (next === "]" || next === "}") depth--;
      const isWhole = this.#skip(DOUBLE) || this.#skip(SINGLE) || this.#skip(PLAIN_IN_FLOW);
      if (!isWhole) this.#at++;
    } while (depth > 0);
    return true;
  }

  #toNextLine(): void {
    const end = this.#text.indexOf("\n", this.#at);
    this.#at = end < 0 ? this.#text.length : end + 1;
  }

  #skip(pattern: RegExp): boolean {
    pattern.lastIndex = this.#at;
    if (!pattern.test(this.#text)) return false;
    const isMore = pattern.lastIndex > this.#at;
    this.#at = pattern.lastIndex;
    return isMore;
  }
}

/** That many blanks at the beginning of a line, which is at that offset. */
interface Move {
  readonly at: number;
  readonly by: number;
}

class MovedLines implements Moved {
  readonly text: string;
  /** For each move, in order: the offset behind its blanks in `text`, and how many stand up to there in all. */
  readonly #behind: number[] = [];
  readonly #added: number[] = [];

  constructor(before: string, moves: readonly Move[]) {
    const pieces: string[] = [];
    let from = 0;
    let added = 0;
    for (const { at, by } of moves) {
      pieces.push(before.slice(from, at), " ".repeat(by));
      from = at;
      added += by;
      this.#behind.push(at + added);
      this.#added.push(added);
    }
    this.text = pieces.join("") + before.slice(from);
  }

  before(offset: number): number {
    let low = 0;
    let high = this.#behind.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#behind[middle]! <= offset) low = middle + 1;
      else high = middle;
    }
    const before = offset - (this.#added[low - 1] ?? 0);
    // Among the blanks of the next move: they stand for the beginning of its line.
    const next = this.#behind[low];
    return next === undefined ? before : Math.min(before, next - this.#added[low]!);
  }
}
