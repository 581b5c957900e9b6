// Hot path: every request walks the matchers of its virtual host. A prefix costs a few byte compares.
import {
  ConfigError,
  compileFilterStateMatch,
  compileHeaderMatch,
  compileMetadataMatch,
  compileQueryMatch,
  compileRegex,
  compileStringMatch,
  headerName,
  latin1Encode,
  type MatchSubject,
  type Regex,
  type RequestHeaders,
  RuntimeFraction,
  requestCookie,
  type SetupContext,
  UriTemplate,
} from "@tsproxy/sdk";
import type { RouteMatch as RouteMatchConfig } from "./route-config.ts";

const QUESTION = 63;
const SLASH = 47;

/** What routes match on besides the request head. */
export interface RouteSubject extends MatchSubject {
  readonly request: RequestHeaders;
  /** A random number of the stream: the same each time its route is chosen. */
  readonly random: number;
  /** The client is internal. */
  readonly internal: boolean;
  readonly isConnect: boolean;
  /** Whether the client has shown a certificate in TLS, and whether it was validated. */
  readonly certificatePresented: boolean;
  readonly certificateValidated: boolean;
}

const FORMS = [
  "prefix",
  "path",
  "path_separated_prefix",
  "safe_regex",
  "connect_matcher",
  "path_match_policy",
] as const;
type PathForm = (typeof FORMS)[number];
/** Forms whose path is not compared byte by byte. */
const TEXTLESS: readonly PathForm[] = ["safe_regex", "connect_matcher", "path_match_policy"];

/** One condition besides the path. `what` says, for people, that it does not hold. */
interface Condition {
  readonly what: string;
  holds(subject: RouteSubject): boolean;
}

/** Settings of a route table that hold for all of its routes. */
export interface PathRules {
  readonly ignoreParameters: boolean;
}

/** Envoy's RouteMatch. */
export class RouteMatch {
  readonly form: PathForm;
  /** What the path is compared with; "": this form has no text. */
  readonly text: string;
  readonly caseSensitive: boolean;
  readonly template: UriTemplate | undefined;
  readonly #regex: Regex | undefined;
  readonly #bytes: Uint8Array;
  readonly #textual: boolean;
  readonly #ignoreParameters: boolean;
  readonly #conditions: readonly Condition[];

  constructor(config: RouteMatchConfig, path: string, cx: SetupContext, rules: PathRules) {
    this.form = pathForm(config, path);
    this.caseSensitive = config.case_sensitive;
    this.#ignoreParameters = rules.ignoreParameters;
    this.#textual = !TEXTLESS.includes(this.form);
    this.#regex =
      config.safe_regex === undefined
        ? undefined
        : compileRegex(config.safe_regex.regex, `${path}.safe_regex.regex`, cx);
    this.template =
      config.path_match_policy === undefined
        ? undefined
        : new UriTemplate(
            config.path_match_policy.typed_config.path_template,
            `${path}.path_match_policy.typed_config.path_template`,
            cx,
          );
    this.text = this.#textual ? String(config[this.form] ?? "") : "";
    this.#bytes = latin1Encode(this.caseSensitive ? this.text : this.text.toLowerCase());
    this.#conditions = compileConditions(config, path, cx);
  }

  matches(subject: RouteSubject): boolean {
    if (!this.#matchesPath(subject)) return false;
    const conditions = this.#conditions;
    for (let k = 0; k < conditions.length; k++) if (!conditions[k]!.holds(subject)) return false;
    return true;
  }

  /** Why the request does not match, for people; undefined: it matches. */
  mismatch(subject: RouteSubject): string | undefined {
    if (!this.#matchesPath(subject)) return this.#pathWords();
    return this.#conditions.find((condition) => !condition.holds(subject))?.what;
  }

  #pathWords(): string {
    if (this.form === "connect_matcher") return "the method is not CONNECT";
    if (this.#textual) {
      const fold = this.caseSensitive ? "" : ", in any case";
      return `the path does not match ${this.form} "${this.text}"${fold}`;
    }
    return `the path does not match its ${this.form}`;
  }

  #matchesPath(subject: RouteSubject): boolean {
    const headers = subject.request;
    if (this.form === "connect_matcher") return subject.isConnect;
    // A CONNECT of HTTP/1 has no path, and no form but `connect_matcher` can match that.
    if (subject.isConnect && headers.path === "") return false;
    if (!this.#textual) {
      const plain = this.#plain(headers.path);
      return this.template === undefined
        ? this.#regex!.matches(plain)
        : this.template.matches(plain);
    }
    if (headers.pathEdited || this.#ignoreParameters) return this.#matchesText(headers.path);
    const wanted = this.#bytes;
    const size = wanted.length;
    const memory = headers.memory;
    const at = headers.base + headers.pathAt;
    const end = headers.base + headers.pathEnd;
    if (end - at < size) return false;
    if (this.caseSensitive) {
      for (let k = 0; k < size; k++) {
        if (memory[at + k] !== wanted[k] || wanted[k] === QUESTION) return false;
      }
    } else {
      for (let k = 0; k < size; k++) {
        const c = memory[at + k]!;
        if ((c >= 65 && c <= 90 ? c + 32 : c) !== wanted[k] || c === QUESTION) return false;
      }
    }
    return this.#endsWell(at + size === end ? -1 : memory[at + size]!);
  }

  #matchesText(path: string): boolean {
    const text = this.#plain(path);
    const wanted = this.caseSensitive ? this.text : this.text.toLowerCase();
    if (!(this.caseSensitive ? text : text.toLowerCase()).startsWith(wanted)) return false;
    return this.#endsWell(text.length === wanted.length ? -1 : text.charCodeAt(wanted.length));
  }

  #plain(path: string): string {
    const plain = withoutQuery(path);
    // RFC 3986 §3.3: every segment may have parameters.
    return this.#ignoreParameters ? plain.replace(/;[^/]*/g, "") : plain;
  }

  /** Whether the match may end here. `next`: the byte behind what was compared; -1: the end of the path. */
  #endsWell(next: number): boolean {
    if (this.form === "prefix" || next === -1 || next === QUESTION) return true;
    return this.form === "path_separated_prefix" && next === SLASH;
  }
}

function pathForm(config: RouteMatchConfig, path: string): PathForm {
  const forms = FORMS.filter((form) => config[form] !== undefined);
  const form = forms[0];
  if (form === undefined || forms.length > 1) {
    throw new ConfigError(path, `give one of ${FORMS.slice(0, -1).join(", ")} and ${FORMS.at(-1)}`);
  }
  return form;
}

function compileConditions(
  config: RouteMatchConfig,
  path: string,
  cx: SetupContext,
): readonly Condition[] {
  const conditions: Condition[] = [];
  const add = (what: string, holds: Condition["holds"]) => conditions.push({ what, holds });
  if (config.runtime_fraction !== undefined) {
    const share = new RuntimeFraction(config.runtime_fraction, cx.runtime);
    add("runtime_fraction leaves this stream out", ({ random }) => share.enabled(random));
  }
  if (config.grpc !== undefined) add("it is no gRPC request", ({ request }) => isGrpc(request));
  for (const [k, header] of config.headers.entries()) {
    const match = compileHeaderMatch(header, `${path}.headers[${k}]`, cx);
    add(`headers[${k}] (${header.name}) does not match`, ({ request }) => match.matches(request));
  }
  for (const [k, query] of config.query_parameters.entries()) {
    const match = compileQueryMatch(query, `${path}.query_parameters[${k}]`, cx);
    add(`query_parameters[${k}] (${query.name}) does not match`, ({ request }) =>
      match.matches(request),
    );
  }
  const { presented, validated } = config.tls_context ?? {};
  if (presented !== undefined) {
    add("tls_context.presented does not match", (s) => s.certificatePresented === presented);
  }
  if (validated !== undefined) {
    add("tls_context.validated does not match", (s) => s.certificateValidated === validated);
  }
  for (const [k, metadata] of config.dynamic_metadata.entries()) {
    const matches = compileMetadataMatch(metadata, `${path}.dynamic_metadata[${k}]`, cx);
    add(`dynamic_metadata[${k}] (${metadata.filter}) does not match`, (s) => matches(s.metadata));
  }
  for (const [k, cookie] of config.cookies.entries()) {
    const matches = compileStringMatch(
      cookie.string_match,
      `${path}.cookies[${k}].string_match`,
      cx,
    );
    add(`cookies[${k}] (${cookie.name}) does not match`, ({ request }) => {
      const value = requestCookie(request, cookie.name);
      return (value !== undefined && matches(value)) !== cookie.invert_match;
    });
  }
  for (const [k, state] of config.filter_state.entries()) {
    const matches = compileFilterStateMatch(state, `${path}.filter_state[${k}]`, cx);
    add(`filter_state[${k}] (${state.key}) does not match`, (s) => matches(s.filterState));
  }
  return conditions;
}

export function withoutQuery(path: string): string {
  const at = path.indexOf("?");
  return at < 0 ? path : path.slice(0, at);
}

const CONTENT_TYPE = headerName("content-type");

/** `application/grpc`, alone or with a suffix (`+proto`); grpc-web is another protocol. */
export function isGrpc(headers: RequestHeaders): boolean {
  const type = headers.get(CONTENT_TYPE);
  if (type === undefined || !type.startsWith("application/grpc")) return false;
  return type.length === 16 || type[16] === "+";
}
