import { ConfigError, type SetupContext } from "./extension.ts";
import { CidrRange, CidrRanges, parseIp } from "./ip.ts";
import {
  CustomMatch,
  compileCustomMatch,
  compileInput,
  isCelInput,
  isCelMatch,
  MatchInput,
  type MatchSubject,
  type ReadInput,
} from "./matcher-inputs.ts";
import { type Static, type TSchema, Type, type Typed, TypedExtension } from "./schema.ts";
import { compileStringMatch, StringMatcher } from "./string-match.ts";

/** Envoy's `xds.type.matcher.v3.Matcher`, with actions of type `A`. */
export interface Matcher<A> {
  readonly matcher_list?: {
    readonly matchers: readonly { readonly predicate: Predicate; readonly on_match: OnMatch<A> }[];
  };
  readonly matcher_tree?: {
    readonly input: MatchInput;
    readonly exact_match_map?: { readonly map: Readonly<Record<string, OnMatch<A>>> };
    readonly prefix_match_map?: { readonly map: Readonly<Record<string, OnMatch<A>>> };
    readonly custom_match?: { readonly typed_config: TreeMatch<A> };
  };
  readonly on_no_match?: OnMatch<A>;
}
/** Custom matchers of a tree: by ranges of addresses, or by domains. */
interface TreeMatch<A> {
  readonly range_matchers?: readonly {
    readonly ranges: readonly CidrRange[];
    readonly on_match: OnMatch<A>;
    readonly exclusive: boolean;
  }[];
  readonly domain_matchers?: readonly {
    readonly domains: readonly string[];
    readonly on_match: OnMatch<A>;
  }[];
}
interface OnMatch<A> {
  readonly action?: { readonly name: string; readonly typed_config: A };
  readonly matcher?: Matcher<A>;
  readonly keep_matching?: boolean;
}
interface Predicate {
  readonly single_predicate?: {
    readonly input: MatchInput;
    readonly value_match?: StringMatcher;
    readonly custom_match?: MatchInput;
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
          input: MatchInput,
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
  // By itself TypeBox numbers recursive schemas in the order in which packages are loaded, which differs from run to run.
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
          Type.Object({
            input: MatchInput,
            exact_match_map: Branches,
            prefix_match_map: Branches,
            custom_match: Type.Optional(
              TypedExtension({
                "xds.type.matcher.v3.IPMatcher": Type.Object({
                  range_matchers: Type.Array(
                    Type.Object({
                      ranges: Type.Array(CidrRange, { minItems: 1 }),
                      on_match: OnMatch,
                      exclusive: Type.Boolean({ default: false }),
                    }),
                  ),
                }),
                "xds.type.matcher.v3.ServerNameMatcher": Type.Object({
                  domain_matchers: Type.Array(
                    Type.Object({
                      domains: Type.Array(Type.String(), { minItems: 1 }),
                      on_match: OnMatch,
                    }),
                  ),
                }),
              }),
            ),
          }),
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

/**
 * Compiles a tree; `compileAction` is called once for each of its actions. `path` is where the tree stands in the config. `inputs`:
 * the only types of input that the tree may have; it may not say `keep_matching` then.
 */
export function compileMatcher<A, T>(
  config: Matcher<A>,
  path: string,
  cx: SetupContext,
  compileAction: (action: A, path: string) => T,
  inputs?: readonly string[],
): CompiledMatcher<T> {
  const compiler = new Compiler(cx, compileAction, inputs);
  return { match: compiler.matcher(config, path) };
}

type Decide<T> = (subject: MatchSubject) => T | undefined;
const nothing = () => undefined;
type Holds = (subject: MatchSubject) => boolean;

class Compiler<A, T> {
  readonly #cx: SetupContext;
  readonly #action: (action: A, path: string) => T;
  /** Undefined: any. */
  readonly #inputs: readonly string[] | undefined;

  constructor(
    cx: SetupContext,
    action: (action: A, path: string) => T,
    inputs: readonly string[] | undefined,
  ) {
    this.#cx = cx;
    this.#action = action;
    this.#inputs = inputs;
  }

  matcher(config: Matcher<A>, path: string): Decide<T> {
    const { matcher_list: list, matcher_tree: tree, on_no_match: none } = config;
    if (list !== undefined && tree !== undefined) {
      throw new ConfigError(path, "give one of matcher_list and matcher_tree");
    }
    const otherwise = none === undefined ? nothing : this.#onMatch(none, `${path}.on_no_match`);
    if (list === undefined && tree === undefined) return otherwise;
    const first =
      list === undefined
        ? this.#tree(tree!, `${path}.matcher_tree`)
        : this.#list(list.matchers, `${path}.matcher_list.matchers`);
    if (none === undefined) return first;
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
    if (config.keep_matching !== true) return () => made;
    if (this.#inputs !== undefined)
      throw new ConfigError(`${path}.keep_matching`, "is not supported here; leave it out");
    return () => undefined;
  }

  #checkInput({ typed_config: { "@type": type } }: MatchInput, path: string): void {
    if (this.#inputs === undefined || this.#inputs.includes(type)) return;
    const names = this.#inputs.map((each) => each.slice(each.lastIndexOf(".") + 1));
    const [last, ...others] = names.reverse();
    throw new ConfigError(
      path,
      `"${type}" is no input for this tree; use ${others.reverse().join(", ")} or ${last}`,
    );
  }

  #tree(config: NonNullable<Matcher<A>["matcher_tree"]>, path: string): Decide<T> {
    this.#checkInput(config.input, `${path}.input`);
    if (isCelInput(config.input))
      throw new ConfigError(`${path}.input`, "HttpAttributesCelMatchInput is for a CelMatcher");
    const read = compileInput(config.input, `${path}.input`);
    const { exact_match_map: exact, prefix_match_map: prefix, custom_match: custom } = config;
    if ([exact, prefix, custom].filter((form) => form !== undefined).length !== 1) {
      throw new ConfigError(path, "give one of exact_match_map, prefix_match_map and custom_match");
    }
    if (custom !== undefined) {
      return this.#branches(custom.typed_config, read, `${path}.custom_match.typed_config`);
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

  #branches(config: TreeMatch<A>, read: ReadInput, path: string): Decide<T> {
    const { range_matchers: ranges, domain_matchers: domains } = config;
    if (ranges !== undefined) return this.#byRange(ranges, read, `${path}.range_matchers`);
    return this.#byDomain(domains ?? [], read, `${path}.domain_matchers`);
  }

  /** The narrowest range comes first. Where it finds nothing, wider ones are tried, except those that are exclusive. */
  #byRange(
    entries: NonNullable<TreeMatch<A>["range_matchers"]>,
    read: ReadInput,
    path: string,
  ): Decide<T> {
    const ranges = entries.flatMap((entry, k) => {
      const decide = this.#onMatch(entry.on_match, `${path}[${k}].on_match`);
      return entry.ranges.map((range, r) => ({
        size: range.prefix_len,
        range: new CidrRanges([range], `${path}[${k}].ranges[${r}]`),
        exclusive: entry.exclusive,
        decide,
      }));
    });
    ranges.sort((a, b) => b.size - a.size);
    return (subject) => {
      const value = read(subject);
      const ip = typeof value === "string" ? parseIp(value) : undefined;
      if (ip === undefined) return undefined;
      let first = true;
      for (const { range, exclusive, decide } of ranges) {
        if (!range.contains(ip) || (exclusive && !first)) continue;
        const found = decide(subject);
        if (found !== undefined) return found;
        first = false;
      }
      return undefined;
    };
  }

  /** Looks for the name itself, then for wildcards from the longest to the shortest (`*.b.c`, `*.c`), then for `*`. */
  #byDomain(
    entries: NonNullable<TreeMatch<A>["domain_matchers"]>,
    read: ReadInput,
    path: string,
  ): Decide<T> {
    const byName = new Map<string, Decide<T>>();
    for (const [k, { domains, on_match }] of entries.entries()) {
      const decide = this.#onMatch(on_match, `${path}[${k}].on_match`);
      for (const [d, domain] of domains.entries()) {
        const at = `${path}[${k}].domains[${d}]`;
        if (/\*/.test(domain.replace(/^\*(\.|$)/, "")))
          throw new ConfigError(at, `"${domain}" has a wildcard that is not its whole first label`);
        if (byName.has(domain)) throw new ConfigError(at, `duplicate domain: ${domain}`);
        byName.set(domain, decide);
      }
    }
    return (subject) => {
      const value = read(subject);
      if (typeof value !== "string") return undefined;
      let name = value;
      let found = byName.get(name)?.(subject);
      for (let dot = name.indexOf("."); found === undefined && dot >= 0; dot = name.indexOf(".")) {
        name = name.slice(dot + 1);
        found = byName.get(`*.${name}`)?.(subject);
      }
      return found ?? byName.get("*")?.(subject);
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
    this.#checkInput(config.input, `${path}.input`);
    const read = compileInput(config.input, `${path}.input`);
    const { value_match: text, custom_match: custom } = config;
    if ((text === undefined) === (custom === undefined)) {
      throw new ConfigError(path, "give one of value_match and custom_match");
    }
    if (isCelInput(config.input) !== (custom !== undefined && isCelMatch(custom))) {
      throw new ConfigError(path, "HttpAttributesCelMatchInput and CelMatcher belong together");
    }
    if (text !== undefined) {
      const matches = compileStringMatch(text, `${path}.value_match`, this.#cx);
      return (subject) => {
        const value = read(subject);
        if (Array.isArray(value)) return value.some((each) => matches(each));
        return typeof value === "string" && matches(value);
      };
    }
    const matches = compileCustomMatch(custom!, `${path}.custom_match.typed_config`, this.#cx);
    return (subject) => matches(read(subject));
  }
}
