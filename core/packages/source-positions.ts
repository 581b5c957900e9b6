import { SourceMap } from "node:module";
import path from "node:path";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";

const NO_POSITIONS = JSON.stringify({ version: 3, sources: [], sourcesContent: [], mappings: "" });

/** Translates positions in a bundled module into positions in its source files. */
export class SourcePositions {
  readonly #read: () => string;
  #map: SourceMap | undefined;
  #contents = new Map<string, string>();

  /** `read` answers the source map as JSON. If it throws, as the file is gone, no position is known. */
  constructor(read: () => string) {
    this.#read = () => {
      try {
        return read();
      } catch {
        return NO_POSITIONS;
      }
    };
  }

  get json(): string {
    return this.#read();
  }

  /** Absolute paths of the source files. */
  get files(): string[] {
    return (JSON.parse(this.#read()).sources as string[]).map((source) =>
      path.resolve("/", source),
    );
  }

  /** The texts of the source files, by absolute path. */
  contents(): ReadonlyMap<string, string> {
    this.#parsed();
    return new Map([...this.#contents].map(([source, text]) => [path.resolve("/", source), text]));
  }

  /** Lines and columns count from 1; `text` is the whole source file. Undefined: the source map does not know the position. */
  find(
    line: number,
    column: number,
  ): { file: string; line: number; column: number; text: string } | undefined {
    const entry = this.#parsed().findEntry(line - 1, column - 1);
    if (!("originalSource" in entry) || entry.originalSource === undefined) return undefined;
    return {
      file: path.resolve("/", entry.originalSource),
      line: entry.originalLine + 1,
      column: entry.originalColumn + 1,
      text: this.#contents.get(entry.originalSource) ?? "",
    };
  }

  // Parsed on first use: positions are needed only when something fails.
  #parsed(): SourceMap {
    if (this.#map === undefined) {
      const payload = JSON.parse(this.#read());
      payload.sources.forEach((source: string, i: number) => {
        this.#contents.set(source, payload.sourcesContent[i] ?? "");
      });
      this.#map = new SourceMap(payload);
    }
    return this.#map;
  }
}

/** Describes an error thrown in bundled modules, at the first line of its stack that lies in one of them. */
export function locate(
  message: string,
  stack: string,
  find: (filename: string) => SourcePositions | undefined,
): Problem {
  for (const [, filename, line, column] of stack.matchAll(/([^\s()]+?):(\d+):(\d+)/g)) {
    const place = find(filename!)?.find(Number(line), Number(column));
    if (place === undefined) continue;
    const frame = codeFrame(place.text, place.line, place.column);
    return {
      ...problem(message),
      file: shortPath(place.file),
      line: place.line,
      column: place.column,
      frame,
    };
  }
  return problem(message);
}
