// Hot path: a log line's pieces become bytes one after the other, test/bench/access-log.ts.
import { utf8Encode } from "./bytes.ts";
import type { Command, FormatSource, FormatValue } from "./format.ts";
import { escaped, textOfValue } from "./json-text.ts";
import type { LineWriter } from "./line-writer.ts";

/** Where a command's value stands: in text, as a JSON value, or between the quotes of a JSON string. */
export type Place = "text" | "json" | "quoted";

const QUOTE = 0x22;

/** A format as a row of literals, each but the last with the value that follows it. */
export class LineFormat {
  readonly #literals: Uint8Array[] = [];
  readonly #commands: Command[] = [];
  readonly #places: Place[] = [];
  readonly #missing: string;
  #literal = "";

  /** `missing`: printed in texts for a value that is missing. */
  constructor(missing: string) {
    this.#missing = missing;
  }

  addLiteral(text: string): void {
    this.#literal += text;
  }

  addCommand(command: Command, place: Place): void {
    this.#literals.push(utf8Encode(this.#literal));
    this.#literal = "";
    this.#commands.push(command);
    this.#places.push(place);
  }

  /** To be called once, when all has been added. */
  end(): void {
    this.#literals.push(utf8Encode(this.#literal));
  }

  write(source: FormatSource, line: LineWriter): void {
    const literals = this.#literals;
    const commands = this.#commands;
    const places = this.#places;
    let k = 0;
    for (; k < commands.length; k++) {
      line.bytes(literals[k]!);
      const command = commands[k]!;
      const place = places[k]!;
      if (command.write === undefined || !written(command.write, place, source, line))
        this.#value(command(source), place, line);
    }
    line.bytes(literals[k]!);
  }

  #value(value: FormatValue, place: Place, line: LineWriter): void {
    if (typeof value === "number" && (place !== "json" || Number.isFinite(value)))
      line.number(value);
    else if (place === "text") line.text(textOfValue(value, this.#missing));
    else if (place === "quoted") writeEscaped(textOfValue(value, this.#missing), line);
    else if (typeof value === "string") {
      line.byte(QUOTE);
      writeEscaped(value, line);
      line.byte(QUOTE);
    } else if (typeof value === "number" || value === undefined) line.bytes(NULL);
    else line.text(JSON.stringify(value));
  }
}

const NULL = utf8Encode("null");

function writeEscaped(text: string, line: LineWriter): void {
  if (!line.plain(text)) line.text(escaped(text));
}

/** False, and nothing is written: `write` could not. */
function written(
  write: NonNullable<Command["write"]>,
  place: Place,
  source: FormatSource,
  line: LineWriter,
): boolean {
  const from = line.at;
  if (place === "json") line.byte(QUOTE);
  if (!write(source, line)) {
    line.at = from;
    return false;
  }
  if (place === "json") line.byte(QUOTE);
  return true;
}
