import { NamedFiles } from "./named-files.ts";

/** One finding about a configuration, at the user's own line. */
export interface Diagnostic {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** `static_resources.listeners[0].filter_chains[1]`, as the user wrote it; "" for the file as a whole. */
  readonly path: string;
  readonly message: string;
  /** How to mend it. */
  readonly help?: string;
}

/** One line, as it is printed: `front.yaml:41:20: path: what is wrong; how to mend it`. */
export function formatDiagnostic(d: Diagnostic): string {
  const path = d.path === "" ? "" : `${d.path}: `;
  const help = d.help === undefined ? "" : `; ${d.help}`;
  return `${d.file}:${d.line}:${d.column}: ${path}${d.message}${help}`;
}

/** A place in the config: an offset into the text, and the path of the field as a person writes it. */
export interface Place {
  readonly offset: number;
  readonly path: string;
}

/** Nobody reads more, and a generated file can have a mistake in each of 100,000 entries. */
const MOST_TOLD = 1000;

interface Finding {
  readonly place: Place;
  readonly message: string;
  readonly help: string | undefined;
}

export interface ReportOptions {
  /** True: fields that Envoy has and nothing here implements are errors. */
  readonly strict: boolean;
  /** True: the config is to serve here, so that what this machine lacks is an error. */
  readonly serves?: boolean;
  /** True: nothing serves the config, only its routes are told; extensions that are not implemented are left out with a warning. */
  readonly explains?: boolean;
  /** Contents of files that the text names, in the place of those on disk. */
  readonly given?: ReadonlyMap<string, Buffer> | undefined;
}

/** Gathers all findings about one file, so that they are reported together. */
export class Report {
  /** The files that the text names and that have been read. */
  readonly files: NamedFiles;
  /** The parts of the text and the line at which each starts: the file, and the overlays. */
  readonly #parts: { readonly name: string; readonly line: number }[];
  text: string;
  readonly #lineStarts: number[] = [0];
  readonly #errors = new Map<string, Finding>();
  readonly #errorPlaces = new Set<string>();
  readonly #warnings = new Map<string, Finding>();
  readonly #strict: boolean;
  readonly #serves: boolean;
  /** As in ReportOptions. */
  readonly explains: boolean;

  constructor(
    file: string,
    text: string,
    { strict, serves = false, explains = false, given }: ReportOptions,
  ) {
    this.files = new NamedFiles(given);
    this.#parts = [{ name: file, line: 0 }];
    this.text = text;
    this.#strict = strict;
    this.#serves = serves;
    this.explains = explains;
    this.#addLines(text, 0);
  }

  /** Appends an overlay's text after the offset `below`. Answers the offset at which it begins. */
  append(name: string, text: string, below: number): number {
    const from = below + 1;
    this.text = this.text.slice(0, from).padEnd(from, "\n") + text;
    this.#parts.push({ name, line: this.#lineStarts.push(from) - 1 });
    this.#addLines(text, from);
    return from;
  }

  #addLines(text: string, from: number): void {
    for (let i = text.indexOf("\n"); i >= 0; i = text.indexOf("\n", i + 1))
      this.#lineStarts.push(from + i + 1);
  }

  error(place: Place, message: string, help?: string): void {
    const at = `${place.offset} ${place.path}`;
    this.#errorPlaces.add(at);
    this.#errors.set(`${at} ${message}`, { place, message, help });
  }
  warn(place: Place, message: string, help?: string): void {
    this.#warnings.set(`${place.offset} ${place.path} ${message}`, { place, message, help });
  }
  /** Reports something that Envoy has and tsproxy does not implement: a warning, or an error with --strict. */
  unimplemented(place: Place, message: string, help?: string): void {
    if (this.#strict) this.error(place, message, help);
    else this.warn(place, message, help);
  }

  /** Reports what this machine lacks: an error where the config is to serve, or with --strict; else it may serve on another one. */
  lacking(place: Place, message: string, help: string): void {
    if (this.#strict || this.#serves) this.error(place, message, help);
    else this.warn(place, message, help);
  }

  /** Reports what keeps a config from being served, but not from telling its routes. */
  unservable(place: Place, message: string, help?: string): void {
    if (this.explains) this.warn(place, message, help);
    else this.error(place, message, help);
  }

  /** True if an error has been reported at exactly this place. */
  has(place: Place): boolean {
    return this.#errorPlaces.has(`${place.offset} ${place.path}`);
  }
  get failed(): boolean {
    return this.#errors.size > 0;
  }
  get errors(): Diagnostic[] {
    return this.#sorted(this.#errors);
  }
  get warnings(): Diagnostic[] {
    return this.#sorted(this.#warnings);
  }

  /** A finding at a place, as it is printed; it is not added to the report. */
  diagnostic(place: Place, message: string, help?: string): Diagnostic {
    const line = this.#lineAt(place.offset);
    const column = place.offset - this.#lineStarts[line]! + 1;
    const part = this.#parts.findLast((p) => p.line <= line)!;
    const found = {
      file: part.name,
      line: line - part.line + 1,
      column,
      path: place.path,
      message,
    };
    return help === undefined ? found : { ...found, help };
  }

  /** Binary search: a large file has a million lines, and may have as many findings. */
  #lineAt(offset: number): number {
    let line = 0;
    let end = this.#lineStarts.length;
    while (end - line > 1) {
      const middle = (line + end) >>> 1;
      if (this.#lineStarts[middle]! > offset) end = middle;
      else line = middle;
    }
    return line;
  }

  #sorted(findings: Map<string, Finding>): Diagnostic[] {
    const sorted = [...findings.values()].sort((a, b) => a.place.offset - b.place.offset);
    const told = sorted.slice(0, MOST_TOLD).map((f) => this.diagnostic(f.place, f.message, f.help));
    const next = sorted[MOST_TOLD];
    if (next === undefined) return told;
    const more = `from here on ${sorted.length - MOST_TOLD} more, which are not told one by one`;
    return [...told, this.diagnostic({ offset: next.place.offset, path: "" }, more)];
  }
}

/** `did you mean "buffer"?`, if one of the words is near enough to be meant. */
export function didYouMean(
  word: string,
  words: Iterable<string>,
  shown: (found: string) => string = (found) => found,
): string | undefined {
  let best: string | undefined;
  let least = Math.max(1, Math.floor(word.length / 3)) + 1;
  for (const candidate of words) {
    const distance = editDistance(word.toLowerCase(), candidate.toLowerCase(), least);
    if (distance < least) {
      least = distance;
      best = candidate;
    }
  }
  return best === undefined ? undefined : `did you mean "${shown(best)}"?`;
}

/** Optimal string alignment: a swap of neighbours counts once. From `limit` on, the result only says "too far". */
function editDistance(a: string, b: string, limit: number): number {
  if (Math.abs(a.length - b.length) >= limit) return limit;
  let before: number[] = [];
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1] ? 0 : 1;
      let cost = Math.min(row[j]! + 1, next[j - 1]! + 1, row[j - 1]! + same);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        cost = Math.min(cost, before[j - 2]! + 1);
      next.push(cost);
    }
    before = row;
    row = next;
  }
  return row[b.length]!;
}

/** A value as the user wrote it, cut to what fits a line. */
export function quote(text: string): string {
  const cut = text.length > 60 ? `${text.slice(0, 57)}…` : text;
  return JSON.stringify(cut);
}

/** Joins words as "a, b or c"; of more than 12 only the first 12. */
export function listed(words: readonly string[]): string {
  if (words.length > 12) return `${words.slice(0, 12).join(", ")}, …`;
  if (words.length < 2) return words.join("");
  return `${words.slice(0, -1).join(", ")} or ${words.at(-1)}`;
}
