import {
  ConfigError,
  compileHeaderMatch,
  compileResponseHeaderMatch,
  type Fraction,
  type HeaderMatcher,
  lateEntry,
  type MatchSubject,
  type Regex,
  RequestHeaders,
  ResponseHeaders,
  Runtime,
  type SetupContext,
} from "@tsproxy/sdk";
import type { ResolvedRoute } from "./route.ts";
import type { RouteConfig } from "./route-config.ts";
import type { RouteSubject } from "./route-match.ts";
import { RouteTable } from "./route-table.ts";
import { Info } from "./stream-info.ts";

type Fields = readonly { readonly key?: string; readonly field?: string; readonly value: string }[];

/** One test of Envoy's router_check_tool: a `ValidationItem`, or the older JSON form, whose keys the comments name. */
interface TestItem {
  readonly test_name?: string;
  readonly input?: {
    /** Older form: `:authority`, `:path`, `:method`. */
    readonly authority?: string;
    readonly path?: string;
    readonly method?: string;
    readonly ssl?: boolean;
    readonly internal?: boolean;
    /** The runtime key that is on; all others are off. */
    readonly runtime?: string;
    readonly random_value?: number;
    /** Older form: `additional_headers`. */
    readonly additional_request_headers?: Fields;
    readonly additional_response_headers?: Fields;
    readonly dynamic_metadata?: readonly {
      readonly metadata_namespace: string;
      readonly value?: Readonly<Record<string, unknown>>;
      readonly allow_overwrite?: boolean;
    }[];
    readonly [older: string]: unknown;
  };
  readonly validate?: {
    readonly cluster_name?: string;
    readonly virtual_cluster_name?: string;
    readonly virtual_host_name?: string;
    readonly path_rewrite?: string;
    readonly host_rewrite?: string;
    readonly path_redirect?: string;
    readonly code_redirect?: number;
    readonly request_header_fields?: Fields;
    readonly response_header_fields?: Fields;
    /** This and the next are of the older form: request headers after the route's edits. */
    readonly header_fields?: Fields;
    readonly custom_header_fields?: Fields;
    readonly request_header_matches?: readonly object[];
    readonly response_header_matches?: readonly object[];
  };
}

export interface CheckInput {
  readonly route_config: RouteConfig;
  readonly tests: readonly TestItem[];
  /** The table is from the time of Envoy's v2 API: its regular expressions are ECMAScript, and may use lookaround. */
  readonly older: boolean;
}

export interface Failure {
  readonly what: string;
  readonly expected: string;
  readonly actual: string;
  /** The line that Envoy's tool prints. */
  readonly line: string;
}

export interface CheckedTest {
  readonly name: string;
  readonly failures: readonly Failure[];
}

export interface CheckOutput {
  readonly tests: readonly CheckedTest[];
  /** Number of routes; each cluster of `weighted_clusters` counts as one. */
  readonly routes: number;
  /** Routes with something confirmed by tests. `label`: place in the config; `share`: part of what can be confirmed, 0 to 1. */
  readonly covered: readonly { readonly label: string; readonly share: number }[];
  /** Labels of all routes, by virtual host. */
  readonly labels: readonly (readonly string[])[];
  /** Regular expressions that RE2 does not accept. */
  readonly refused: readonly string[];
}

/** What tests may ask of a route: FORWARDED of one that forwards, ANSWERED of one that redirects or answers. */
const FORWARDED = [
  "cluster_name",
  "virtual_cluster_name",
  "virtual_host_name",
  "path_rewrite",
  "host_rewrite",
] as const;
const ANSWERED = ["path_redirect", "code_redirect"] as const;
const FACTS = [...FORWARDED, ...ANSWERED] as const;
type Fact = (typeof FACTS)[number];

/** Sends each test's request through the route table, and compares the result with what the test expects. */
export function checkRoutes(input: CheckInput, cx: SetupContext): CheckOutput {
  const runtime = new TestRuntime();
  const refused = new Set<string>();
  const regex = (pattern: string) =>
    input.older ? olderRegex(pattern, cx, refused) : cx.regex(pattern);
  const known = tableContext(cx, runtime, regex);
  const table = new RouteTable(input.route_config, "route_config", known);
  const coverage = new Coverage();
  const tests = input.tests.map((item, k) => {
    const subject = new TestRequest(item);
    runtime.enable(item.input?.runtime);
    const { label = "", route } = table.explain(subject) ?? {};
    const facts = new Facts(subject, route, item);
    const failures = compare(item, facts, coverage.of(label, route), cx);
    return { name: item.test_name ?? `test ${k + 1}`, failures };
  });
  const list = input.route_config.virtual_hosts;
  const virtual_hosts = list.entries.map((_, v) => lateEntry(list, v));
  const flat = [...table.labels];
  const labels = virtual_hosts.map((host) => flat.splice(0, host.routes.length));
  const routes = virtual_hosts
    .flatMap((host) => host.routes)
    .reduce((sum, each) => sum + (each.route?.weighted_clusters?.clusters.length ?? 1), 0);
  return { tests, routes, covered: coverage.report(), labels, refused: [...refused] };
}

/** Notes which facts of which routes tests have confirmed. */
class Coverage {
  readonly #routes = new Map<string, { label: string; all: number; facts: Set<Fact> }>();

  of(label: string, route: ResolvedRoute | undefined): (fact: Fact) => void {
    const action = route?.action;
    if (action === undefined) return () => {};
    const forwards = action.type === "route";
    const all: readonly Fact[] = forwards ? FORWARDED : ANSWERED;
    const key = `${label}\n${forwards ? action.cluster : ""}`;
    return (fact) => {
      if (!all.includes(fact)) return;
      const known = this.#routes.get(key) ?? { label, all: all.length, facts: new Set() };
      known.facts.add(fact);
      this.#routes.set(key, known);
    };
  }

  report(): CheckOutput["covered"] {
    return [...this.#routes.values()].map(({ label, all, facts }) => ({
      label,
      share: facts.size / all,
    }));
  }
}

/** Compiles an expression of an older table. One that RE2 refuses is added to `refused`, and tested by a backtracking engine. */
function olderRegex(pattern: string, cx: SetupContext, refused: Set<string>): Regex {
  try {
    return cx.regex(pattern);
  } catch {
    refused.add(pattern);
    const whole = new RegExp(`^(?:${pattern})$`, "s");
    return {
      groups: new RegExp(`${pattern}|`).exec("")!.length - 1,
      matches: (text) => whole.test(text),
      replaceAll: (text, substitution) =>
        text.replace(new RegExp(pattern, "gs"), (...found) =>
          substitution.replace(/\\(\d)/g, (_, digit) => String(found[Number(digit)] ?? "")),
        ),
    };
  }
}

/** A context with all that a route table needs. Every cluster exists in it. */
export function tableContext(
  cx: SetupContext,
  runtime: Runtime,
  regex: SetupContext["regex"] = (pattern) => cx.regex(pattern),
): SetupContext {
  const { stats, log, role, worker, node } = cx;
  const clusters = { get: () => ({}) };
  const extension: SetupContext["extension"] = (kind, ref) => cx.extension(kind, ref);
  const known = { stats, log, role, worker, node, clusters, runtime, regex, extension };
  return known as unknown as SetupContext;
}

/** As in the tool: the runtime key that a test names is on, with the config's fraction but at least 1; all other keys are off. */
class TestRuntime extends Runtime {
  #enabled = "";

  enable(key = ""): void {
    this.#enabled = key;
    this.replace([]);
  }

  override fraction(key: string, fallback: Fraction): Fraction {
    const { numerator, denominator } = fallback;
    return { numerator: key === this.#enabled ? Math.max(numerator, 1) : 0, denominator };
  }
}

/** The request of a test, or of `route explain`, as a route table sees it. */
export class TestRequest implements RouteSubject {
  readonly request = new RequestHeaders();
  readonly info = new Info();
  readonly metadata = new Map<string, Record<string, unknown>>();
  readonly random: number;
  readonly internal: boolean;
  readonly isConnect: boolean;
  readonly certificatePresented = false;
  readonly certificateValidated = false;
  response: ResponseHeaders | undefined = undefined;

  constructor({ input = {} }: TestItem) {
    const older = (name: string) => input[name] as string | undefined;
    const address = { ip: "127.0.0.1", port: 0 };
    this.info.downstreamRemoteAddress = this.info.downstreamDirectAddress = address;
    this.info.downstreamLocalAddress = address;
    const { request } = this;
    request.method = input.method ?? older(":method") ?? "GET";
    request.path = input.path ?? older(":path") ?? "";
    request.authority = input.authority ?? older(":authority") ?? "";
    request.scheme = input.ssl === true ? "https" : "http";
    request.append("x-forwarded-proto", request.scheme);
    this.internal = input.internal === true;
    if (this.internal) request.append("x-envoy-internal", "true");
    this.random = Number(input.random_value ?? 0);
    this.isConnect = request.method === "CONNECT";
    const more = input.additional_request_headers ?? (input.additional_headers as Fields) ?? [];
    for (const field of more) setHeader(request, nameOf(field), field.value);
    for (const {
      metadata_namespace: space,
      value = {},
      allow_overwrite,
    } of input.dynamic_metadata ?? []) {
      if (!this.metadata.has(space) || allow_overwrite === true) {
        this.metadata.set(space, { ...value });
      }
    }
  }
}

const nameOf = (field: Fields[number]): string => plainName(field.key ?? field.field ?? "");

const PSEUDO = [":authority", ":path", ":method", ":scheme", ":status"];

/** Renames headers such as `:cookie`, which tests ask for but no request can have. */
function plainName(name: string): string {
  return name.startsWith(":") && !PSEUDO.includes(name) ? `no-such-${name.slice(1)}` : name;
}

function setHeader(headers: RequestHeaders, name: string, value: string): void {
  if (name === ":authority") headers.authority = value;
  else if (name === ":path") headers.path = value;
  else if (name === ":method") headers.method = value;
  else if (!name.startsWith(":")) headers.append(name, value);
}

/** What became of a test's request. */
class Facts {
  readonly values: Readonly<Record<Fact, string>>;
  readonly request: RequestHeaders;
  readonly response: ResponseHeaders;

  constructor(subject: TestRequest, route: ResolvedRoute | undefined, { input }: TestItem) {
    const { request, info } = subject;
    const action = route?.action;
    let redirect = "";
    let code = "0";
    if (action?.type === "redirect")
      redirect = action.location(request, subject as MatchSubject as never);
    if (action?.type === "direct_response") {
      redirect = `${request.scheme}://${request.authority ?? ""}${request.path}`;
    }
    if (action !== undefined && action.type !== "route") code = String(action.status);
    this.request = request;
    this.response = responseOf(route, subject, input?.additional_response_headers ?? []);
    const forwards = action?.type === "route";
    if (forwards) {
      route!.editRequest(request, info, subject as MatchSubject as never);
      action.rewrite(request, true, subject as MatchSubject as never);
    }
    this.values = {
      cluster_name: forwards ? (action.cluster ?? "") : "",
      // The tool looks for the virtual cluster after the path was rewritten.
      virtual_cluster_name: forwards ? (route!.virtualCluster(request)?.name ?? "") : "",
      virtual_host_name: forwards ? route!.virtualHostName : "",
      path_rewrite: forwards ? request.path : "",
      host_rewrite: forwards ? (request.authority ?? "") : "",
      path_redirect: redirect,
      code_redirect: code,
    };
  }
}

function responseOf(
  route: ResolvedRoute | undefined,
  subject: TestRequest,
  more: Fields,
): ResponseHeaders {
  const response = new ResponseHeaders();
  const action = route?.action;
  response.status = action === undefined || action.type === "route" ? 200 : action.status;
  for (const field of more) response.append(nameOf(field), field.value);
  if (action?.type === "direct_response" && action.body.length > 0) {
    response.append("content-length", String(action.body.length));
    response.append("content-type", "text/plain");
  }
  route?.editResponse(response, subject.info, subject.request, subject as MatchSubject as never);
  return response;
}

function compare(
  { validate = {} }: TestItem,
  facts: Facts,
  confirm: (fact: Fact) => void,
  cx: SetupContext,
): readonly Failure[] {
  const failures: Failure[] = [];
  const fail = (what: string, expected: string, actual: string, not = "") => {
    const line = `expected: [${expected}], actual: ${not}[${actual}], test type: ${what}`;
    failures.push({ what, expected, actual, line });
  };
  for (const what of FACTS) {
    const expected = validate[what];
    if (expected === undefined) continue;
    if (String(expected) === facts.values[what]) confirm(what);
    else fail(what, String(expected), facts.values[what]);
  }
  const request = (name: string) => requestHeader(facts.request, name);
  const response = (name: string) =>
    name === ":status" ? String(facts.response.status) : facts.response.get(name);
  const fields = (what: string, list: Fields, read: (name: string) => string | undefined) => {
    for (const field of list) {
      const actual = read(nameOf(field)) ?? "";
      // The tool reads the first line of a header; here lines are joined, so the first value counts as well.
      if (actual !== field.value && actual.split(",")[0] !== field.value)
        fail(what, field.value, actual);
    }
  };
  const matches = (
    what: string,
    list: readonly object[],
    read: (name: string) => string | undefined,
    holds: (matcher: HeaderMatcher) => boolean,
  ) => {
    for (const given of list) {
      const matcher = matcherOf(given);
      if (!holds(matcher)) failures.push(mismatch(what, given, matcher, read(matcher.name)));
    }
  };
  matches("request_header_matches", validate.request_header_matches ?? [], request, (matcher) =>
    compileHeaderMatch(matcher, "request_header_matches", cx).matches(facts.request),
  );
  const older = [...(validate.header_fields ?? []), ...(validate.custom_header_fields ?? [])];
  fields("request_header_fields", [...(validate.request_header_fields ?? []), ...older], request);
  // The tool joins the lines of a header, as Envoy did for long. Either reading may match.
  const joined = joinLines(facts.response);
  matches(
    "response_header_matches",
    validate.response_header_matches ?? [],
    response,
    (matcher) => {
      const match = compileResponseHeaderMatch(matcher, "response_header_matches", cx);
      const [each, whole] = [match.matches(facts.response), match.matches(joined)];
      return matcher.invert_match ? each && whole : each || whole;
    },
  );
  fields("response_header_fields", validate.response_header_fields ?? [], response);
  return failures;
}

const FORMS = ["exact", "prefix", "suffix", "safe_regex", "contains"] as const;

/** The tool's words for a header that does not match: presence and exact values name what was expected, others do not. */
function mismatch(
  what: string,
  given: object,
  matcher: HeaderMatcher,
  value: string | undefined,
): Failure {
  const asked = given as Record<string, unknown>;
  const { name } = asked as { name: string };
  const { invert_match: inverted } = matcher;
  const actual = `${name}: ${value ?? "NULL"}`;
  const text = asked.string_match as Record<string, unknown> | undefined;
  const older = FORMS.find((form) => asked[`${form}_match`] !== undefined);
  const form = FORMS.find((each) => text?.[each] !== undefined) ?? older;
  const of = (type: string) => `test type: ${what}.${type}`;
  const failure = (expected: string, line: string, seen = actual): Failure => ({
    what,
    expected,
    actual: seen,
    line,
  });
  if (form === "exact") {
    const expected = `${name}: ${String(text?.exact ?? asked.exact_match)}`;
    const type = of(text === undefined ? "exact_match" : "string_match.exact");
    const not = inverted ? "NOT " : "";
    return failure(expected, `expected: [${expected}], actual: ${not}[${actual}], ${type}`);
  }
  if (form !== undefined || asked.range_match !== undefined) {
    const named = text === undefined ? `${form}_match` : `string_match.${form}`;
    const type = of(form === undefined ? "range_match" : named);
    return failure(JSON.stringify(given), `actual: [${actual}], ${type}`);
  }
  const [expected, seen] = [`has(${name}):${!inverted}`, `has(${name}):${inverted}`];
  return failure(
    expected,
    `expected: [${expected}], actual: [${seen}], ${of("present_match")}`,
    seen,
  );
}

function joinLines(headers: ResponseHeaders): ResponseHeaders {
  const joined = new ResponseHeaders();
  joined.status = headers.status;
  for (const name of new Set([...headers].map(([each]) => each))) {
    joined.append(name, headers.getAll(name).join(","));
  }
  return joined;
}

function requestHeader(headers: RequestHeaders, name: string): string | undefined {
  if (name === ":path") return headers.path;
  if (name === ":method") return headers.method;
  if (name === ":scheme") return headers.scheme;
  return name === ":authority" ? headers.authority : headers.get(name);
}

/** Completes a test's header matcher, which no schema has checked: adds defaults, and converts deprecated forms. */
function matcherOf(given: object): HeaderMatcher {
  const { exact_match, prefix_match, suffix_match, contains_match, safe_regex_match, ...rest } =
    given as Record<string, unknown>;
  const forms = {
    exact: exact_match,
    prefix: prefix_match,
    suffix: suffix_match,
    contains: contains_match,
    safe_regex: safe_regex_match,
  };
  const older = Object.entries(forms).find(([, value]) => value !== undefined);
  const text = rest.string_match ?? (older === undefined ? undefined : { [older[0]]: older[1] });
  if (typeof rest.name !== "string") throw new ConfigError("", "a header matcher has no name");
  return {
    invert_match: false,
    treat_missing_header_as_empty: false,
    ...rest,
    name: plainName(rest.name),
    ...(text === undefined ? {} : { string_match: { ignore_case: false, ...(text as object) } }),
  } as HeaderMatcher;
}
