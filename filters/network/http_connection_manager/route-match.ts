// Hot path: every request walks the matchers of its virtual host. A prefix costs a few byte compares.
import {
  ConfigError,
  compileHeaderMatch,
  compileQueryMatch,
  compileRegex,
  type HeadMatch,
  headerName,
  latin1Encode,
  type Regex,
  type RequestHeaders,
  RuntimeFraction,
  type SetupContext,
} from "@tsproxy/sdk";
import type { RouteMatch as RouteMatchConfig } from "./route-config.ts";

const QUESTION = 63;
const SLASH = 47;

/** One random number a stream, the same however often its route is chosen. */
export interface Chance {
  readonly random: number;
}

type PathForm = "prefix" | "path" | "path_separated_prefix" | "safe_regex";

/** Envoy's RouteMatch. */
export class RouteMatch {
  readonly form: PathForm;
  /** What the path is compared with; "" for a regular expression. */
  readonly text: string;
  readonly caseSensitive: boolean;
  readonly regex: Regex | undefined;
  readonly #bytes: Uint8Array;
  readonly #conditions: readonly HeadMatch[];
  readonly #fraction: RuntimeFraction | undefined;

  constructor(config: RouteMatchConfig, path: string, cx: SetupContext) {
    this.form = pathForm(config, path);
    this.caseSensitive = config.case_sensitive;
    this.regex =
      config.safe_regex === undefined
        ? undefined
        : compileRegex(config.safe_regex.regex, `${path}.safe_regex.regex`, cx);
    this.text = this.form === "safe_regex" ? "" : (config[this.form] ?? "");
    this.#bytes = latin1Encode(this.caseSensitive ? this.text : this.text.toLowerCase());
    this.#conditions = [
      ...(config.grpc === undefined ? [] : [{ matches: isGrpc }]),
      ...config.headers.map((h, k) => compileHeaderMatch(h, `${path}.headers[${k}]`, cx)),
      ...config.query_parameters.map((q, k) =>
        compileQueryMatch(q, `${path}.query_parameters[${k}]`, cx),
      ),
    ];
    const fraction = config.runtime_fraction;
    this.#fraction = fraction && new RuntimeFraction(fraction, cx.runtime);
  }

  matches(headers: RequestHeaders, chance: Chance): boolean {
    if (!this.#matchesPath(headers)) return false;
    if (this.#fraction?.enabled(chance.random) === false) return false;
    for (let k = 0; k < this.#conditions.length; k++) {
      if (!this.#conditions[k]!.matches(headers)) return false;
    }
    return true;
  }

  #matchesPath(headers: RequestHeaders): boolean {
    if (this.regex !== undefined) return this.regex.matches(withoutQuery(headers.path));
    const wanted = this.#bytes;
    const size = wanted.length;
    if (headers.pathEdited) return this.#matchesText(headers.path);
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
    const text = withoutQuery(path);
    const wanted = this.caseSensitive ? this.text : this.text.toLowerCase();
    if (!(this.caseSensitive ? text : text.toLowerCase()).startsWith(wanted)) return false;
    return this.#endsWell(text.length === wanted.length ? -1 : text.charCodeAt(wanted.length));
  }

  /** `next`: the byte after what was compared, -1 at the end of the path. */
  #endsWell(next: number): boolean {
    if (this.form === "prefix" || next === -1 || next === QUESTION) return true;
    return this.form === "path_separated_prefix" && next === SLASH;
  }
}

function pathForm(config: RouteMatchConfig, path: string): PathForm {
  const forms = (["prefix", "path", "path_separated_prefix", "safe_regex"] as const).filter(
    (form) => config[form] !== undefined,
  );
  const form = forms[0];
  if (form === undefined || forms.length > 1) {
    throw new ConfigError(path, "give one of prefix, path, path_separated_prefix and safe_regex");
  }
  return form;
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
