import { SourceMap } from "node:module";
import path from "node:path";
import { codeFrame, type Problem, problem, shortPath } from "../problem.ts";

/** A source map as JSON. `texts`: of its sources, by absolute path, if they are not in it. */
export interface MapAndTexts {
  /** Undefined: no position is known. */
  readonly map: string | undefined;
  readonly texts?: ReadonlyMap<string, string> | undefined;
}

const NO_POSITIONS = JSON.stringify({ version: 3, sources: [], sourcesContent: [], mappings: "" });

/** Translates positions in a bundled module into positions in its source files. */
export class SourcePositions {
  readonly #read: () => MapAndTexts & { readonly map: string };
  #map: SourceMap | undefined;
  #contents = new Map<string, string>();

  /** If `read` throws, as the file is gone, no position is known. */
  constructor(read: () => MapAndTexts) {
    this.#read = () => {
      try {
        const { map = NO_POSITIONS, texts } = read();
        return { map, texts };
      } catch {
        return { map: NO_POSITIONS };
      }
    };
  }

  /** As it was made: texts go into the map only for who wants one JSON, since that takes milliseconds. */
  get parts(): MapAndTexts {
    return this.#read();
  }

  /** The source map, with the texts of its sources. */
  get json(): string {
    const { map, texts } = this.#read();
    return texts === undefined ? map : JSON.stringify(this.#payload());
  }

  /** Absolute paths of the source files. */
  get files(): string[] {
    return (JSON.parse(this.#read().map).sources as string[]).map((source) =>
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
      const payload = this.#payload();
      payload.sources.forEach((source: string, i: number) => {
        this.#contents.set(source, payload.sourcesContent[i] ?? "");
      });
      this.#map = new SourceMap(payload);
    }
    return this.#map;
  }

  #payload() {
    const { map, texts } = this.#read();
    const payload = JSON.parse(map);
    if (texts === undefined) return payload;
    const textOf = (source: string) => texts.get(path.resolve("/", source)) ?? "";
    return { ...payload, sourcesContent: payload.sources.map(textOf) };
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
