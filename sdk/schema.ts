import { type Static, type TObject, type TProperties, type TSchema, Type } from "@sinclair/typebox";

/** Of TypeBox (`@sinclair/typebox`), whose documentation tells of all its types: schemas, and the values that they describe. */
export { type Static, type TSchema, Type };

/**
 * A use of another extension inside a config: `{ name, typed_config }`, or the short `{ name, config }`. Core finds these by
 * the schema, checks the inner config against the package it names, and hands `setup` an ExtensionRef.
 */
export interface ExtensionRef {
  /** The name that the config gives it. For HTTP filters it is the key of per-route configs; otherwise any text. */
  readonly name: string;
  /** `kind/name` of the package that was found. */
  readonly package: string;
  /** The inner config, checked, with the package's defaults. */
  readonly config: unknown;
}

/**
 * Schema of a use of an extension of that kind. `fields`: further fields that the entry may have beside its name and config (`filter`
 * of an access log); `setup` finds them in the ExtensionRef.
 */
export function Extension<F extends TProperties = Record<never, never>>(
  kind: string,
  options: { readonly description?: string; readonly fields?: F } = {},
) {
  const { fields, ...rest } = options;
  const properties = fields === undefined ? {} : { properties: fields };
  return Type.Unsafe<ExtensionRef & Static<TObject<F>>>({
    type: "object",
    extension: kind,
    ...properties,
    ...rest,
  });
}

/**
 * Schema of `typed_per_filter_config`: from the name of an HTTP filter in its chain to an ExtensionRef whose `config` has been checked
 * by the filter's `routeConfig` schema. Envoy's `route.v3.FilterConfig` around a config is unwrapped; `disabled` keeps what it says.
 */
export function RouteConfigs() {
  return Type.Record(
    Type.String(),
    Type.Unsafe<RouteConfigRef>({ type: "object", extension: "http", perRoute: true }),
  );
}

/** An entry of `typed_per_filter_config`. */
export interface RouteConfigRef extends ExtensionRef {
  /** `FilterConfig.disabled`: the filter is skipped on this route. Absent: the entry does not say. */
  readonly disabled?: boolean;
}

/**
 * Schema of Envoy's DataSource, whatever its form (a file, an environment variable, inline): `setup` gets the text. `filter dev`, run
 * without a config, gives the first of `examples`, such as `{ inline_string: "[]" }`.
 */
export function DataSource(
  options: { readonly examples?: readonly { readonly inline_string: string }[] } = {},
) {
  return Type.Unsafe<{ readonly text: string }>({ type: "object", dataSource: "text", ...options });
}

/** What a DataSource holds that need not be text. */
export type SourceBytes = { readonly text: string } | { readonly base64: string };

/** Schema of a DataSource that may hold any bytes: `setup` gets the text if they are UTF-8, else the bytes in base64. */
export function BytesSource() {
  return Type.Unsafe<SourceBytes>({ type: "object", dataSource: "bytes" });
}

/** Schema of the path of a file that is written, such as a log: a config that names one in a folder that does not exist is refused. */
export function OutputFile(
  options: { readonly default?: string; readonly minLength?: number } = {},
) {
  return Type.Unsafe<string>({ type: "string", outputFile: true, ...options });
}

/** Where the lines of a script's text stand, for debuggers. */
export interface ScriptPlace {
  readonly file: string;
  /** Of its first line, from 1. */
  readonly line: number;
}

/** A Lua script of the config, and the modules that it loads with `require`. */
export interface LuaSource {
  readonly text: string;
  /** Absent: its lines are not consecutive lines of a file (an environment variable, a folded scalar). */
  readonly place?: ScriptPlace;
  /** By the names that `require` gives them: files beside the config, or in the folder where the proxy was started. */
  readonly modules: Readonly<Record<string, LuaModule>>;
}
/** A file that a Lua script may `require`. */
export interface LuaModule {
  readonly text: string;
  /** As `require` finds it: `./lib/name.lua`. */
  readonly file: string;
  readonly place?: ScriptPlace;
}

/** Schema of a Lua script: a DataSource, or the text itself. `setup` gets a LuaSource. */
export function LuaSource(options: { readonly description?: string } = {}) {
  return Type.Unsafe<LuaSource>({ type: ["object", "string"], lua: true, ...options });
}

/**
 * Schema of a protobuf Any that the package reads itself, which may be one of these messages: name -> schema of its fields. `setup`
 * gets the fields, and the name in `"@type"`.
 */
export function Typed<const T extends Record<string, TSchema>>(types: T) {
  return Type.Unsafe<TypedOf<T>>({ type: "object", typed: types });
}
type TypedOf<T extends Record<string, TSchema>> = {
  [K in keyof T]: { readonly "@type": K } & Static<T[K]>;
}[keyof T];

/** The same within a TypedExtensionConfig: `{ name, typed_config }`. */
export function TypedExtension<const T extends Record<string, TSchema>>(types: T) {
  return Type.Object({ name: Type.String({ default: "" }), typed_config: Typed(types) });
}

/** A protobuf Duration: a string of seconds (`"0.25s"`). `setup` gets milliseconds as a number. */
export function Duration(
  options: { readonly default?: number; readonly description?: string } = {},
) {
  return Type.Unsafe<number>({ type: "number", duration: true, minimum: 0, ...options });
}

/** A non-negative integer that fits 32 bits. */
export function UInt32(
  options: { readonly default?: number; readonly maximum?: number; readonly minimum?: number } = {},
) {
  return Type.Integer({ minimum: 0, maximum: 0xffff_ffff, ...options });
}

/** One of Envoy's enum names; any letter case and the protobuf number are folded to the name before the check. */
export function Enum<const T extends readonly string[]>(
  names: T,
  options: { readonly default?: T[number] } = {},
) {
  return Type.Unsafe<T[number]>({ type: "string", enum: [...names], ...options });
}

/** A script of the config: JavaScript (spaces have replaced the types), and where it stood, so that errors can name the line. */
export interface ScriptSource {
  readonly code: string;
  /** Its path as the user has written it. */
  readonly file: string;
  /** Of its first character, from 1. */
  readonly line: number;
  /** How many columns each of its lines is indented by, in a block scalar. */
  readonly indent: number;
  /** Absent: its lines are lines of the file. Otherwise, where escapes or folded lines are, runs of characters that stand together. */
  readonly runs?: readonly ScriptRun[];
}

/** Row and column in the code, from 0, of the first of `size` characters, and its line and column in the file, from 1. */
export type ScriptRun = readonly [
  row: number,
  column: number,
  size: number,
  line: number,
  fileColumn: number,
];

/**
 * Schema of a script's text; `setup` gets a ScriptSource. `file`: the config has a path instead. `body`: the text is the body of
 * one function.
 */
export function ScriptSource(
  options: { readonly file?: boolean; readonly body?: boolean; readonly description?: string } = {},
) {
  const { file = false, body = false, ...rest } = options;
  const script = file ? "file" : body ? "body" : "module";
  return Type.Unsafe<ScriptSource>({ type: "object", script, ...rest });
}

/** A regular expression in RE2's syntax; `setup` compiles it with `cx.regex`. */
export const SafeRegex = Type.Object({ regex: Type.String({ minLength: 1 }) });
export type SafeRegex = Static<typeof SafeRegex>;

/** Envoy's `Cluster.LbPolicy`: each value but LOAD_BALANCING_POLICY_CONFIG is a package of that name in `filters/balancer`. */
export const LbPolicy = Enum(
  [
    "ROUND_ROBIN",
    "LEAST_REQUEST",
    "RING_HASH",
    "RANDOM",
    "MAGLEV",
    "CLUSTER_PROVIDED",
    "LOAD_BALANCING_POLICY_CONFIG",
  ],
  { default: "ROUND_ROBIN" },
);
