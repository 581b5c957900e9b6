import type { AccessLogger, LogEntry } from "./access-log.ts";
import { ConfigError, type FileSink, type SetupContext } from "./extension.ts";
import { compileFormat, compileJsonFormat, type Format, type FormatOptions } from "./format.ts";
import { WITHOUT_QUERY } from "./format-commands.ts";
import { type Static, Type, TypedExtension } from "./schema.ts";
import { surroundings } from "./surroundings.ts";

/** `json_format` and its like: a tree whose strings are formats. */
export const JsonFormatTree = Type.Record(Type.String(), Type.Unknown());

const DataSource = Type.Object({
  inline_string: Type.Optional(Type.String()),
  filename: Type.Optional(Type.String({ minLength: 1 })),
  environment_variable: Type.Optional(Type.String({ minLength: 1 })),
});

/** The further fields of a SubstitutionFormatString. */
export const formatterFields = {
  // METADATA is a command also without its entry; REQ_WITHOUT_QUERY is not.
  formatters: Type.Optional(
    Type.Array(
      TypedExtension({
        [WITHOUT_QUERY]: Type.Object({}),
        "envoy.extensions.formatter.metadata.v3.Metadata": Type.Object({}),
      }),
    ),
  ),
  // Keys are sorted either way, as Envoy's are.
  json_format_options: Type.Optional(
    Type.Object({ sort_properties: Type.Boolean({ default: false }) }),
  ),
};

/** Envoy's `core.v3.SubstitutionFormatString`. `content_type` matters only where the format makes a body. */
export const SubstitutionFormatString = Type.Object({
  text_format: Type.Optional(Type.String()),
  text_format_source: Type.Optional(DataSource),
  json_format: Type.Optional(JsonFormatTree),
  omit_empty_values: Type.Boolean({ default: false }),
  content_type: Type.String({ default: "" }),
  ...formatterFields,
});
export type SubstitutionFormatString = Static<typeof SubstitutionFormatString>;

/** True if REQ_WITHOUT_QUERY is a command of the format. */
export function knowsWithoutQuery({
  formatters,
}: Pick<SubstitutionFormatString, "formatters">): boolean {
  return formatters?.some((entry) => entry.typed_config["@type"] === WITHOUT_QUERY) === true;
}

/** `path`: where it stands in the package's config. An empty text is no format: undefined. */
export function compileLogFormat(
  config: SubstitutionFormatString,
  path: string,
  cx: SetupContext,
): Format | undefined {
  const forms = (["text_format", "text_format_source", "json_format"] as const).filter(
    (form) => config[form] !== undefined,
  );
  const [form, second] = forms;
  if (second !== undefined)
    throw new ConfigError(`${path}.${second}`, `stands beside "${form}"; keep one of the two`);
  if (form === undefined)
    throw new ConfigError(path, "give one of text_format_source, text_format and json_format");
  const withoutQuery = knowsWithoutQuery(config);
  const options = { ...logFormatOptions(`${path}.${form}`, cx), withoutQuery };
  if (form === "json_format")
    return compileJsonFormat(config.json_format, {
      ...options,
      omitEmpty: config.omit_empty_values,
    });
  const text =
    form === "text_format"
      ? config.text_format!
      : textOf(config.text_format_source!, `${path}.text_format_source`, cx);
  if (text === "") return undefined;
  return compileFormat(text, config.omit_empty_values ? { ...options, missing: "" } : options);
}

/** A command that does not exist refuses the config; one that has no data here is named in a warning. */
export function logFormatOptions(path: string, cx: SetupContext): FormatOptions {
  return {
    onUnknown: (message) => {
      throw new ConfigError(path, message);
    },
    onUnsupported: (command) =>
      cx.log.warn(`access log: nothing collects %${command}%, it prints as missing`, {
        field: path,
      }),
  };
}

/** An access logger that appends one formatted text an entry to a file; the format ends its own lines. */
export class FormatLogger implements AccessLogger {
  readonly #file: FileSink;
  readonly #format: Format;

  constructor(file: FileSink, format: Format) {
    this.#file = file;
    this.#format = format;
  }

  log(entry: LogEntry): void {
    this.#file.print(this.#format, entry);
  }
}

function textOf(source: Static<typeof DataSource>, path: string, cx: SetupContext): string {
  const given = Object.entries(source).filter(([, value]) => value !== undefined);
  const [field, value] = given[0] ?? [];
  if (field === undefined || value === undefined || given.length > 1)
    throw new ConfigError(path, "is empty; write inline_string: <format>, or filename: <path>");
  switch (field) {
    case "filename":
      return read(value, `${path}.filename`, cx);
    case "environment_variable":
      if (!Object.hasOwn(surroundings.environment, value))
        throw new ConfigError(`${path}.environment_variable`, `there is no "${value}"`);
      return surroundings.environment[value]!;
    default:
      return value;
  }
}

function read(file: string, path: string, cx: SetupContext): string {
  try {
    return cx.readFile(file);
  } catch (error) {
    throw new ConfigError(path, error instanceof Error ? error.message : String(error));
  }
}
