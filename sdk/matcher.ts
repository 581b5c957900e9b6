import { ConfigError, type SetupContext } from "./extension.ts";
import { nameOf, queryParameter } from "./header-match.ts";
import type { HeaderMap, RequestHeaders, ResponseHeaders } from "./headers.ts";
import type { StreamInfo } from "./http.ts";
import { CidrRange, CidrRanges, isLoopback, parseIp } from "./ip.ts";
import { compileValueMatch, ValueMatcher, valueAt } from "./metadata-match.ts";
import type { Address } from "./network.ts";
import { type Static, type TSchema, Type, type Typed, TypedExtension } from "./schema.ts";
import { compileStringMatch, StringMatcher } from "./string-match.ts";

/** What the inputs of a matcher tree look at; an HttpStream is one. */
export interface MatchSubject {
  readonly info: Pick<
    StreamInfo,
    "downstreamRemoteAddress" | "downstreamDirectAddress" | "downstreamLocalAddress"
  >;
  readonly request?: RequestHeaders | undefined;
  readonly response?: ResponseHeaders | undefined;
  readonly trailers?: HeaderMap | undefined;
  readonly metadata?: ReadonlyMap<string, Readonly<Record<string, unknown>>> | undefined;
  /** The name that the client asked for in TLS; "" if none. */
  readonly serverName?: string | undefined;
  /** `tls` or `raw_buffer`. */
  readonly transportProtocol?: string | undefined;
  readonly applicationProtocols?: readonly string[] | undefined;
}

const HeaderInput = Type.Object({ header_name: Type.String({ minLength: 1 }) });
const NETWORK = "envoy.extensions.matching.common_inputs.network.v3";
const Nothing = Type.Object({});

/** The inputs that Envoy's HTTP matching has and that have their data here. */
const Input = TypedExtension({
  "envoy.type.matcher.v3.HttpRequestHeaderMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpResponseHeaderMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpResponseTrailerMatchInput": HeaderInput,
  "envoy.type.matcher.v3.HttpRequestQueryParamMatchInput": Type.Object({
    query_param: Type.String({ minLength: 1 }),
  }),
  [`${NETWORK}.DestinationIPInput`]: Nothing,
  [`${NETWORK}.DestinationPortInput`]: Nothing,
  [`${NETWORK}.SourceIPInput`]: Nothing,
  [`${NETWORK}.SourcePortInput`]: Nothing,
  [`${NETWORK}.DirectSourceIPInput`]: Nothing,
  [`${NETWORK}.SourceTypeInput`]: Nothing,
  [`${NETWORK}.ServerNameInput`]: Nothing,
  [`${NETWORK}.TransportProtocolInput`]: Nothing,
  [`${NETWORK}.ApplicationProtocolInput`]: Nothing,
  [`${NETWORK}.DynamicMetadataInput`]: Type.Object({
    filter: Type.String({ minLength: 1 }),
    path: Type.Array(Type.Object({ key: Type.String({ minLength: 1 }) }), { minItems: 1 }),
  }),
});
type Input = { readonly typed_config: { readonly "@type": string } & Record<string, unknown> };

const INPUT_MATCHERS = "envoy.extensions.matching.input_matchers";
const CustomMatch = TypedExtension({
  [`${INPUT_MATCHERS}.ip.v3.Ip`]: Type.Object({
    cidr_ranges: Type.Array(CidrRange, { minItems: 1 }),
    stat_prefix: Type.String({ minLength: 1 }),
  }),
  [`${INPUT_MATCHERS}.metadata.v3.Metadata`]: Type.Object({
    value: ValueMatcher,
    invert: Type.Boolean({ default: false }),
  }),
});

/** Envoy's `xds.type.matcher.v3.Matcher`, with actions of type `A`. */
export interface Matcher<A> {
  readonly matcher_list?: {
    readonly matchers: readonly { readonly predicate: Predicate; readonly on_match: OnMatch<A> }[];
  };
  readonly matcher_tree?: {
    readonly input: Input;
    readonly exact_match_map?: { readonly map: Readonly<Record<string, OnMatch<A>>> };
    readonly prefix_match_map?: { readonly map: Readonly<Record<string, OnMatch<A>>> };
  };
  readonly on_no_match?: OnMatch<A>;
}
interface OnMatch<A> {
  readonly action?: { readonly name: string; readonly typed_config: A };
  readonly matcher?: Matcher<A>;
  readonly keep_matching?: boolean;
}
interface Predicate {
  readonly single_predicate?: {
    readonly input: Input;
    readonly value_match?: StringMatcher;
    readonly custom_match?: Input;
  };
  readonly or_matcher?: { readonly predicate: readonly Predicate[] };
  readonly and_matcher?: { readonly predicate: readonly Predicate[] };
  readonly not_matcher?: Predicate;
}
const PredicateSchema = Type.Recursive(
  (This) =>
    Type.Object({
      single_predicate: Type.Optional(
        Type.Object({
          input: Input,
          value_match: Type.Optional(StringMatcher),
          custom_match: Type.Optional(CustomMatch),
        }),
      ),
      or_matcher: Type.Optional(Type.Object({ predicate: Type.Array(This, { minItems: 2 }) })),
      and_matcher: Type.Optional(Type.Object({ predicate: Type.Array(This, { minItems: 2 }) })),
      not_matcher: Type.Optional(This),
    }),
  { $id: "MatcherPredicate" },
);

/** Schema of a matcher whose actions are these messages: name -> schema of its fields. */
export function MatcherOf<const T extends Record<string, TSchema>>(actions: T) {
  const Action = TypedExtension(actions);
  // TypeBox would number it by the order in which packages are loaded, which is another one each time.
  const $id = `MatcherOf.${Object.keys(actions).join(".")}`;
  const schema = Type.Recursive(
    (This) => {
      const OnMatch = Type.Object({
        action: Type.Optional(Action),
        matcher: Type.Optional(This),
        keep_matching: Type.Boolean({ default: false }),
      });
      const Branches = Type.Optional(
        Type.Object({ map: Type.Record(Type.String(), OnMatch, { minProperties: 1 }) }),
      );
      return Type.Object({
        matcher_list: Type.Optional(
          Type.Object({
            matchers: Type.Array(Type.Object({ predicate: PredicateSchema, on_match: OnMatch }), {
              minItems: 1,
            }),
          }),
        ),
        matcher_tree: Type.Optional(
          Type.Object({ input: Input, exact_match_map: Branches, prefix_match_map: Branches }),
        ),
        on_no_match: Type.Optional(OnMatch),
      });
    },
    { $id },
  );
  type Action = Static<ReturnType<typeof Typed<T>>>;
  return Type.Unsafe<Matcher<Action>>(schema);
}

/** What a tree answers: an action, or undefined. */
export interface CompiledMatcher<T> {
  match(subject: MatchSubject): T | undefined;
}

/** A tree with its actions made by `compileAction`, each once. `path` is where the tree stands in the config. */
export function compileMatcher<A, T>(
  config: Matcher<A>,
  path: string,
  cx: SetupContext,
  compileAction: (action: A, path: string) => T,
): CompiledMatcher<T> {
  const compiler = new Compiler(cx, compileAction);
  return { match: compiler.matcher(config, path) };
}

type Decide<T> = (subject: MatchSubject) => T | undefined;
type Holds = (subject: MatchSubject) => boolean;
/** Undefined: there is no value, which no condition matches. */
type Read = (subject: MatchSubject) => unknown;

class Compiler<A, T> {
  readonly #cx: SetupContext;
  readonly #action: (action: A, path: string) => T;

  constructor(cx: SetupContext, action: (action: A, path: string) => T) {
    this.#cx = cx;
    this.#action = action;
  }

  matcher(config: Matcher<A>, path: string): Decide<T> {
    const { matcher_list: list, matcher_tree: tree, on_no_match: none } = config;
    if ((list === undefined) === (tree === undefined)) {
      throw new ConfigError(path, "give one of matcher_list and matcher_tree");
    }
    const first =
      list === undefined
        ? this.#tree(tree!, `${path}.matcher_tree`)
        : this.#list(list.matchers, `${path}.matcher_list.matchers`);
    if (none === undefined) return first;
    const otherwise = this.#onMatch(none, `${path}.on_no_match`);
    return (subject) => first(subject) ?? otherwise(subject);
  }

  /** A nested matcher that finds nothing is no match, and so is an action that says `keep_matching`: the next one is asked. */
  #list(entries: NonNullable<Matcher<A>["matcher_list"]>["matchers"], path: string): Decide<T> {
    const compiled = entries.map((entry, k) => ({
      holds: this.#predicate(entry.predicate, `${path}[${k}].predicate`),
      decide: this.#onMatch(entry.on_match, `${path}[${k}].on_match`),
    }));
    return (subject) => {
      for (const { holds, decide } of compiled) {
        const found = holds(subject) ? decide(subject) : undefined;
        if (found !== undefined) return found;
      }
      return undefined;
    };
  }

  #onMatch(config: OnMatch<A>, path: string): Decide<T> {
    const { action, matcher } = config;
    if ((action === undefined) === (matcher === undefined)) {
      throw new ConfigError(path, "give one of action and matcher");
    }
    if (matcher !== undefined) return this.matcher(matcher, `${path}.matcher`);
    const made = this.#action(action!.typed_config, `${path}.action.typed_config`);
    return config.keep_matching === true ? () => undefined : () => made;
  }

  #tree(config: NonNullable<Matcher<A>["matcher_tree"]>, path: string): Decide<T> {
    const read = this.#input(config.input, `${path}.input`);
    const { exact_match_map: exact, prefix_match_map: prefix } = config;
    if ((exact === undefined) === (prefix === undefined)) {
      throw new ConfigError(path, "give one of exact_match_map and prefix_match_map");
    }
    const form = exact === undefined ? "prefix_match_map" : "exact_match_map";
    const map = new Map<string, Decide<T>>();
    for (const [key, value] of Object.entries((exact ?? prefix)!.map)) {
      map.set(key, this.#onMatch(value, `${path}.${form}.map[${JSON.stringify(key)}]`));
    }
    if (exact !== undefined) {
      return (subject) => {
        const value = read(subject);
        return typeof value === "string" ? map.get(value)?.(subject) : undefined;
      };
    }
    const lengths = [...new Set([...map.keys()].map((key) => key.length))].sort((a, b) => b - a);
    return (subject) => {
      const value = read(subject);
      if (typeof value !== "string") return undefined;
      for (const length of lengths) {
        if (length > value.length) continue;
        const found = map.get(value.slice(0, length))?.(subject);
        if (found !== undefined) return found;
      }
      return undefined;
    };
  }

  #predicate(config: Predicate, path: string): Holds {
    const { single_predicate: single, or_matcher: or, and_matcher: and, not_matcher: not } = config;
    if ([single, or, and, not].filter((form) => form !== undefined).length !== 1) {
      const forms = "single_predicate, or_matcher, and_matcher and not_matcher";
      throw new ConfigError(path, `give one of ${forms}`);
    }
    const all = (form: string, list: readonly Predicate[]) =>
      list.map((each, k) => this.#predicate(each, `${path}.${form}.predicate[${k}]`));
    if (or !== undefined) {
      const any = all("or_matcher", or.predicate);
      return (subject) => any.some((holds) => holds(subject));
    }
    if (and !== undefined) {
      const every = all("and_matcher", and.predicate);
      return (subject) => every.every((holds) => holds(subject));
    }
    if (not !== undefined) {
      const holds = this.#predicate(not, `${path}.not_matcher`);
      return (subject) => !holds(subject);
    }
    return this.#single(single!, `${path}.single_predicate`);
  }

  #single(config: NonNullable<Predicate["single_predicate"]>, path: string): Holds {
    const read = this.#input(config.input, `${path}.input`);
    const { value_match: text, custom_match: custom } = config;
    if ((text === undefined) === (custom === undefined)) {
      throw new ConfigError(path, "give one of value_match and custom_match");
    }
    if (text !== undefined) {
      const matches = compileStringMatch(text, `${path}.value_match`, this.#cx);
      return (subject) => {
        const value = read(subject);
        if (Array.isArray(value)) return value.some((each) => matches(each));
        return typeof value === "string" && matches(value);
      };
    }
    const matches = this.#custom(custom!, `${path}.custom_match.typed_config`);
    return (subject) => matches(read(subject));
  }

  #custom(config: Input, path: string): (value: unknown) => boolean {
    const { typed_config: typed } = config as Static<typeof CustomMatch>;
    if ("cidr_ranges" in typed) {
      const ranges = new CidrRanges(typed.cidr_ranges, `${path}.cidr_ranges`);
      return (value) => {
        const ip = typeof value === "string" ? parseIp(value) : undefined;
        return ip !== undefined && ranges.contains(ip);
      };
    }
    const matches = compileValueMatch(typed.value, `${path}.value`, this.#cx);
    return (value) => value !== undefined && matches(value) !== typed.invert;
  }

  #input(config: Input, path: string): Read {
    const typed = config.typed_config;
    const type = typed["@type"].slice(typed["@type"].lastIndexOf(".") + 1);
    const at = `${path}.typed_config`;
    switch (type) {
      case "HttpRequestHeaderMatchInput":
        return readHeader(typed.header_name as string, at, (subject) => subject.request);
      case "HttpResponseHeaderMatchInput":
        return readHeader(typed.header_name as string, at, (subject) => subject.response);
      case "HttpResponseTrailerMatchInput":
        return readHeader(typed.header_name as string, at, (subject) => subject.trailers);
      case "HttpRequestQueryParamMatchInput":
        return (subject) => queryValue(subject.request?.path, typed.query_param as string);
      case "DynamicMetadataInput": {
        const keys = (typed.path as { key: string }[]).map(({ key }) => key);
        return (subject) => valueAt(subject.metadata?.get(typed.filter as string), keys);
      }
      case "DestinationIPInput":
        return ({ info }) => ipOf(info.downstreamLocalAddress);
      case "DestinationPortInput":
        return ({ info }) => portOf(info.downstreamLocalAddress);
      case "SourceIPInput":
        return ({ info }) => ipOf(info.downstreamRemoteAddress);
      case "SourcePortInput":
        return ({ info }) => portOf(info.downstreamRemoteAddress);
      case "DirectSourceIPInput":
        return ({ info }) => ipOf(info.downstreamDirectAddress);
      case "SourceTypeInput":
        return ({ info }) => (isLocal(info) ? "local" : undefined);
      case "ServerNameInput":
        return (subject) => subject.serverName || undefined;
      case "TransportProtocolInput":
        return (subject) => subject.transportProtocol || undefined;
      default:
        return applicationProtocols;
    }
  }
}

/** As Envoy's input writes them: `'h2','http/1.1'`. */
function applicationProtocols({ applicationProtocols: list }: MatchSubject): string | undefined {
  if (list === undefined || list.length === 0) return undefined;
  return list.map((name) => `'${name}'`).join(",");
}

/** The lines of one name, joined as Envoy joins them. */
function readHeader(
  name: string,
  path: string,
  of: (subject: MatchSubject) => HeaderMap | undefined,
): Read {
  if (name.startsWith(":")) {
    return (subject) => pseudoHeader(subject, name.toLowerCase(), of(subject));
  }
  const header = nameOf(name, `${path}.header_name`);
  return (subject) => {
    const values = of(subject)?.getAll(header);
    return values === undefined || values.length === 0 ? undefined : values.join(",");
  };
}

function pseudoHeader(
  subject: MatchSubject,
  name: string,
  headers: HeaderMap | undefined,
): string | undefined {
  if (headers === undefined) return undefined;
  if (headers === subject.response) {
    return name === ":status" ? String(subject.response.status) : undefined;
  }
  if (headers !== subject.request) return undefined;
  const { request } = subject;
  if (name === ":path") return request.path;
  if (name === ":method") return request.method;
  if (name === ":scheme") return request.scheme;
  return name === ":authority" ? request.authority : undefined;
}

function queryValue(path: string | undefined, name: string): string | undefined {
  const value = path === undefined ? undefined : queryParameter(path, name);
  if (value === undefined || !value.includes("%")) return value;
  return value.replace(/%([0-9a-fA-F]{2})/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16)),
  );
}

const ipOf = (address: Address): string | undefined =>
  address.path === undefined ? address.ip : undefined;
const portOf = (address: Address): string | undefined =>
  address.path === undefined ? String(address.port) : undefined;

function isLocal(info: MatchSubject["info"]): boolean {
  const { downstreamDirectAddress: remote, downstreamLocalAddress: local } = info;
  if (remote.path !== undefined) return true;
  const bytes = parseIp(remote.ip);
  return remote.ip === local.ip || (bytes !== undefined && isLoopback(bytes));
}
