import { ConfigError, type SetupContext } from "./extension.ts";
import {
  type HeaderName,
  headerName,
  type RequestHeaders,
  type ResponseHeaders,
} from "./headers.ts";
import { type Static, Type } from "./schema.ts";
import { compileStringMatch, type StringMatch, StringMatcher } from "./string-match.ts";
import { percentDecode } from "./wire-text.ts";

/** Envoy's `route.v3.HeaderMatcher`. */
export const HeaderMatcher = Type.Object({
  name: Type.String({ minLength: 1 }),
  string_match: Type.Optional(StringMatcher),
  present_match: Type.Optional(Type.Boolean()),
  range_match: Type.Optional(
    Type.Object({ start: Type.Integer({ default: 0 }), end: Type.Integer({ default: 0 }) }),
  ),
  invert_match: Type.Boolean({ default: false }),
  treat_missing_header_as_empty: Type.Boolean({ default: false }),
});
export type HeaderMatcher = Static<typeof HeaderMatcher>;

/** Envoy's `route.v3.QueryParameterMatcher`. */
export const QueryParameterMatcher = Type.Object({
  name: Type.String({ minLength: 1 }),
  string_match: Type.Optional(StringMatcher),
  present_match: Type.Optional(Type.Boolean()),
});
export type QueryParameterMatcher = Static<typeof QueryParameterMatcher>;

/** A condition on a head, a request's unless the type says otherwise. */
export interface HeadMatch<H = RequestHeaders> {
  matches(headers: H): boolean;
}

const PSEUDO = {
  ":method": (headers: RequestHeaders) => headers.method,
  ":path": (headers: RequestHeaders) => headers.path,
  ":authority": (headers: RequestHeaders) => headers.authority,
  ":scheme": (headers: RequestHeaders) => headers.scheme,
} as const;

/** Envoy's HeaderMatcher: one condition on the lines of one name. */
export function compileHeaderMatch(
  config: HeaderMatcher,
  path: string,
  cx: SetupContext,
): HeadMatch {
  return compileWith(config, path, cx, headerReader(config.name, `${path}.name`));
}

/** The same for a response head, whose only pseudo header is `:status`. */
export function compileResponseHeaderMatch(
  config: HeaderMatcher,
  path: string,
  cx: SetupContext,
): HeadMatch<ResponseHeaders> {
  if (config.name.toLowerCase() === ":status") {
    return compileWith(config, path, cx, (headers: ResponseHeaders) => [String(headers.status)]);
  }
  const header = nameOf(config.name, `${path}.name`);
  return compileWith(config, path, cx, (headers: ResponseHeaders) => headers.getAll(header));
}

function compileWith<H>(
  config: HeaderMatcher,
  path: string,
  cx: SetupContext,
  read: (headers: H) => readonly string[],
): HeadMatch<H> {
  const invert = config.invert_match;
  const value = valueMatch(config, path, cx);
  if (value === undefined) {
    // Nothing is asked of the value: the header has to be there, or (present_match: false) not to be there.
    const wanted = (config.present_match ?? true) !== invert;
    const orEmpty = config.treat_missing_header_as_empty;
    return { matches: (headers) => (orEmpty || read(headers).length > 0) === wanted };
  }
  return {
    matches: (headers) => {
      const values = read(headers);
      if (values.length === 0) {
        return config.treat_missing_header_as_empty && value("") !== invert;
      }
      // Envoy 1.40 looks at each line by itself, never at the joined value.
      let any = false;
      for (let k = 0; k < values.length && !any; k++) any = value(values[k]!);
      return any !== invert;
    },
  };
}

/** Reads all lines of that name of a request's head; pseudo headers have one. */
export function headerReader(
  name: string,
  path: string,
): (headers: RequestHeaders) => readonly string[] {
  const lower = name.toLowerCase();
  if (lower.startsWith(":")) {
    const pseudo = PSEUDO[lower as keyof typeof PSEUDO];
    if (pseudo === undefined) {
      throw new ConfigError(
        path,
        `a request has no "${name}"; use :method, :path, :authority or :scheme`,
      );
    }
    return (headers) => {
      const value = pseudo(headers);
      return value === undefined ? NONE : [value];
    };
  }
  const header = nameOf(name, path);
  return (headers) => headers.getAll(header);
}
const NONE: readonly string[] = [];

/** A header name of the config. */
export function nameOf(name: string, path: string): HeaderName {
  try {
    return headerName(name);
  } catch {
    throw new ConfigError(path, `"${name}" is not a header name`);
  }
}

function valueMatch(
  config: HeaderMatcher,
  path: string,
  cx: SetupContext,
): StringMatch | undefined {
  const forms = (["string_match", "present_match", "range_match"] as const).filter(
    (form) => config[form] !== undefined,
  );
  if (forms.length > 1) throw new ConfigError(path, `give one of ${forms.join(" and ")}`);
  if (config.string_match !== undefined) {
    return compileStringMatch(config.string_match, `${path}.string_match`, cx);
  }
  const range = config.range_match;
  if (range === undefined) return undefined;
  return (text) => {
    if (!/^[+-]?[0-9]{1,19}$/.test(text)) return false;
    const n = Number(text);
    return n >= range.start && n < range.end;
  };
}

/** Envoy's QueryParameterMatcher: the first value of that parameter, as it is written or, where `read` says so, decoded. */
export function compileQueryMatch(
  config: QueryParameterMatcher,
  path: string,
  cx: SetupContext,
  read: typeof queryParameter = queryParameter,
): HeadMatch {
  const match =
    config.string_match === undefined
      ? undefined
      : compileStringMatch(config.string_match, `${path}.string_match`, cx);
  const present = config.present_match ?? true;
  const { name } = config;
  return {
    matches: (headers) => {
      const value = read(headers.path, name);
      if (match === undefined) return (value !== undefined) === present;
      return value !== undefined && match(value);
    },
  };
}

/** The first value of that parameter, as it is written; undefined: none. */
export function queryParameter(path: string, name: string): string | undefined {
  let at = path.indexOf("?") + 1;
  if (at === 0) return undefined;
  while (at <= path.length) {
    let end = path.indexOf("&", at);
    if (end < 0) end = path.length;
    if (path.startsWith(name, at)) {
      const after = at + name.length;
      if (after === end) return "";
      if (after < end && path[after] === "=") return path.slice(after + 1, end);
    }
    at = end + 1;
  }
  return undefined;
}

/** The first value of that parameter, both decoded; undefined: none. */
export function decodedParameter(path: string, name: string): string | undefined {
  const at = path.indexOf("?");
  if (at < 0) return undefined;
  for (const pair of path.slice(at + 1).split("&")) {
    const equals = pair.indexOf("=");
    const key = equals < 0 ? pair : pair.slice(0, equals);
    if (percentDecode(key) === name) return equals < 0 ? "" : percentDecode(pair.slice(equals + 1));
  }
  return undefined;
}
