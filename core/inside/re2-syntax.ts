/**
 * Translates a pattern from RE2's syntax to a source that V8's linear engine matches in the same way on ASCII texts. Undefined:
 * there is no such source, and re2js must match. The pattern must be valid RE2: that is not checked here.
 */
export function toLinearSource(pattern: string): string | undefined {
  try {
    return new Translator(pattern).translate();
  } catch (error) {
    if (error === UNTRANSLATABLE) return undefined;
    throw error;
  }
}

const UNTRANSLATABLE = new Error("no source for V8");

interface Flags {
  readonly ignoreCase: boolean;
  readonly dotAll: boolean;
}

/** The state around a group that is being read. */
interface Group {
  readonly flags: Flags;
  readonly empty: Emptiness;
}

/**
 * Whether parts of a group may match the empty text: an earlier alternative, the present one without its last atom, that atom.
 */
interface Emptiness {
  before: boolean;
  sequence: boolean;
  atom: boolean;
}
const fresh = (): Emptiness => ({ before: false, sequence: true, atom: true });

/** RE2's `\s` has neither the vertical tab nor characters beyond ASCII. */
const SPACES = "\\t\\n\\f\\r ";
const POSIX: Readonly<Record<string, string>> = {
  alnum: "0-9A-Za-z",
  alpha: "A-Za-z",
  ascii: "\\x00-\\x7f",
  blank: "\\t ",
  cntrl: "\\x00-\\x1f\\x7f",
  digit: "0-9",
  graph: "!-~",
  lower: "a-z",
  print: " -~",
  punct: "!-\\/:-@\\[-`{-~",
  space: "\\t\\n\\v\\f\\r ",
  upper: "A-Z",
  word: "0-9A-Za-z_",
  xdigit: "0-9A-Fa-f",
};
/** Most nested groups: V8's engine recurses into them. */
const DEEPEST = 200;

class Translator {
  readonly #text: string;
  #at = 0;
  #out = "";
  #flags: Flags = { ignoreCase: false, dotAll: false };
  readonly #outer: Group[] = [];
  #empty = fresh();

  constructor(text: string) {
    this.#text = text;
  }

  translate(): string {
    const text = this.#text;
    while (this.#at < text.length) {
      const char = text[this.#at++]!;
      if (char === "(") this.#open();
      else if (char === ")") this.#close();
      else if (char === "{") this.#brace();
      else if ("*+?|".includes(char)) this.#operator(char);
      else {
        this.#atom(char === "^" || char === "$");
        if (char === "\\") this.#escape();
        else if (char === "[") this.#class();
        else if (char === ".") this.#out += this.#flags.dotAll ? "[^]" : "[^\\n]";
        else if (char === "}" || char === "]") this.#out += `\\${char}`;
        else if (char === "^" || char === "$") this.#out += char;
        else this.#out += this.#literal(char);
      }
    }
    return this.#out;
  }

  /** An atom begins; `empty`: it may match the empty text. */
  #atom(empty: boolean): void {
    this.#empty.sequence &&= this.#empty.atom;
    this.#empty.atom = empty;
  }

  #operator(char: string): void {
    this.#out += char;
    if (char === "|") {
      const { before, sequence, atom } = this.#empty;
      this.#empty = { ...fresh(), before: before || (sequence && atom) };
    } else if (char !== "+") this.#empty.atom = true;
  }

  /** A brace that begins no repetition stands for itself. */
  #brace(): void {
    const repeat = /^(\d+)(?:,\d*)?\}/.exec(this.#text.slice(this.#at, this.#at + 16));
    if (repeat === null) {
      this.#atom(false);
      this.#out += "\\{";
      return;
    }
    // V8's linear engine and RE2 differ in counted repetitions of what may match the empty text.
    if (this.#empty.atom) throw UNTRANSLATABLE;
    if (Number(repeat[1]) === 0) this.#empty.atom = true;
    this.#out += `{${repeat[0]}`;
    this.#at += repeat[0].length;
  }

  #literal(char: string): string {
    if (this.#flags.ignoreCase && /[a-zA-Z]/.test(char)) {
      return `[${char.toLowerCase()}${char.toUpperCase()}]`;
    }
    return char === "/" || char === "-" ? `\\${char}` : char;
  }

  #escape(): void {
    const char = this.#text[this.#at++];
    if (char === undefined) throw UNTRANSLATABLE;
    if (char === "s") this.#out += `[${SPACES}]`;
    else if (char === "S") this.#out += `[^${SPACES}]`;
    else if (char === "A" || char === "z") {
      this.#empty.atom = true;
      this.#out += char === "A" ? "^" : "$";
    } else if ("bB".includes(char)) {
      this.#empty.atom = true;
      this.#out += `\\${char}`;
    } else if ("dDwW".includes(char)) this.#out += `\\${char}`;
    else if (char === "Q") this.#quoted();
    else this.#out += this.#literal2(this.#code(char));
  }

  #literal2(code: number): string {
    const char = String.fromCharCode(code);
    return /[a-zA-Z]/.test(char) ? this.#literal(char) : hex(code);
  }

  /** The character that an escape stands for. */
  #code(char: string): number {
    const control = "abtnvfr".indexOf(char);
    if (control >= 0 && char !== "b") return [7, 8, 9, 10, 11, 12, 13][control]!;
    if (char === "x") {
      const digits = /^(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})/.exec(
        this.#text.slice(this.#at, this.#at + 8),
      );
      if (digits === null) throw UNTRANSLATABLE;
      this.#at += digits[0].length;
      const code = Number.parseInt(digits[1] ?? digits[2]!, 16);
      if (code > 127) throw UNTRANSLATABLE;
      return code;
    }
    const code = char.charCodeAt(0);
    if (code > 127 || /[a-zA-Z0-9]/.test(char)) throw UNTRANSLATABLE;
    return code;
  }

  #quoted(): void {
    const end = this.#text.indexOf("\\E", this.#at);
    const quoted = this.#text.slice(this.#at, end < 0 ? undefined : end);
    this.#at = end < 0 ? this.#text.length : end + 2;
    if (quoted === "") this.#empty.atom = true;
    for (const char of quoted) this.#out += this.#literal2(char.charCodeAt(0));
  }

  #open(): void {
    if (this.#outer.length > DEEPEST) throw UNTRANSLATABLE;
    const rest = this.#text.slice(this.#at, this.#at + 80);
    if (!rest.startsWith("?")) {
      this.#begin("(");
      return;
    }
    const name = /^\?P?<\w+>/.exec(rest);
    if (name !== null) {
      this.#at += name[0].length;
      this.#begin("(");
      return;
    }
    const group = /^\?([is]*)(?:-([is]+))?([:)])/.exec(rest);
    if (group === null) throw UNTRANSLATABLE;
    this.#at += group[0].length;
    const [, on = "", off = "", end] = group;
    const outer = this.#flags;
    const inner = {
      ignoreCase: (outer.ignoreCase || on.includes("i")) && !off.includes("i"),
      dotAll: (outer.dotAll || on.includes("s")) && !off.includes("s"),
    };
    if (end === ":") this.#begin("(?:");
    this.#flags = inner;
  }

  #begin(text: string): void {
    this.#outer.push({ flags: this.#flags, empty: this.#empty });
    this.#empty = fresh();
    this.#out += text;
  }

  #close(): void {
    const outer = this.#outer.pop();
    if (outer === undefined) throw UNTRANSLATABLE;
    const { before, sequence, atom } = this.#empty;
    this.#flags = outer.flags;
    this.#empty = outer.empty;
    this.#atom(before || (sequence && atom));
    this.#out += ")";
  }

  #class(): void {
    const negated = this.#text[this.#at] === "^";
    if (negated) this.#at++;
    let items = "";
    let first = true;
    for (;;) {
      const char = this.#text[this.#at];
      if (char === undefined) throw UNTRANSLATABLE;
      if (char === "]" && !first) break;
      first = false;
      items += this.#item();
    }
    this.#at++;
    this.#out += `[${negated ? "^" : ""}${items}]`;
  }

  /** One member of a class, a range, or a set that has a name. */
  #item(): string {
    const named = /^\[:(\w+):\]/.exec(this.#text.slice(this.#at, this.#at + 12));
    if (named !== null) {
      const set = POSIX[named[1]!];
      if (set === undefined) throw UNTRANSLATABLE;
      // Sets with letters of one case would need those of the other.
      if (this.#flags.ignoreCase && /upper|lower/.test(named[1]!)) throw UNTRANSLATABLE;
      this.#at += named[0].length;
      return set;
    }
    if (this.#text.startsWith("[:", this.#at)) throw UNTRANSLATABLE;
    if (this.#text[this.#at] === "\\") {
      const set = this.#text[this.#at + 1] ?? "";
      if ("dDwWs".includes(set) && set !== "") {
        this.#at += 2;
        return set === "s" ? SPACES : `\\${set}`;
      }
    }
    const low = this.#member();
    if (this.#text[this.#at] !== "-" || this.#text[this.#at + 1] === "]") {
      return this.#range(low, low);
    }
    this.#at++;
    const high = this.#member();
    if (high < low) throw UNTRANSLATABLE;
    return this.#range(low, high);
  }

  #member(): number {
    const char = this.#text[this.#at++];
    if (char === undefined) throw UNTRANSLATABLE;
    if (char === "\\") return this.#code(this.#text[this.#at++] ?? "0");
    const code = char.charCodeAt(0);
    if (code > 127) throw UNTRANSLATABLE;
    return code;
  }

  #range(low: number, high: number): string {
    const own = low === high ? hex(low) : `${hex(low)}-${hex(high)}`;
    if (!this.#flags.ignoreCase) return own;
    return own + overlap(low, high, 65, 90, 32) + overlap(low, high, 97, 122, -32);
  }
}

/** The letters of one case within a range, in the other case. */
function overlap(low: number, high: number, from: number, to: number, shift: number): string {
  const [first, last] = [Math.max(low, from), Math.min(high, to)];
  return first > last ? "" : `${hex(first + shift)}-${hex(last + shift)}`;
}

function hex(code: number): string {
  return `\\x${code.toString(16).padStart(2, "0")}`;
}
