import {
  compileStringMatch,
  headerText,
  RuntimeFraction,
  type SetupContext,
  type StringMatch,
} from "@tsproxy/sdk";
import type { Policy } from "./config.ts";

type TextField = "allow_methods" | "allow_headers" | "expose_headers" | "max_age";

/** One level's policy, compiled. */
export class CompiledPolicy {
  readonly config: Policy;
  readonly #origins: readonly StringMatch[];
  readonly #anyOrigin: boolean;
  readonly #enabled: RuntimeFraction;
  readonly #shadow: RuntimeFraction | undefined;

  constructor(config: Policy, cx: SetupContext) {
    const text = (field: TextField): string => headerText(config[field], field);
    this.config = {
      ...config,
      allow_methods: text("allow_methods"),
      allow_headers: text("allow_headers"),
      expose_headers: text("expose_headers"),
      max_age: text("max_age"),
    };
    this.#origins = config.allow_origin_string_match.map((match, k) =>
      compileStringMatch(match, `allow_origin_string_match[${k}]`, cx),
    );
    // As in Envoy, a matcher that matches the text "*" matches every origin.
    this.#anyOrigin = this.#origins.some((matches) => matches("*"));
    this.#enabled = new RuntimeFraction(config.filter_enabled, cx.runtime);
    const shadow = config.shadow_enabled;
    this.#shadow = shadow === undefined ? undefined : new RuntimeFraction(shadow, cx.runtime);
  }

  get enabled(): boolean {
    return this.#enabled.enabled();
  }
  get shadow(): boolean {
    return this.#shadow?.enabled() ?? false;
  }
  get hasOrigins(): boolean {
    return this.#origins.length > 0;
  }
  allows(origin: string): boolean {
    return this.#anyOrigin || this.#origins.some((matches) => matches(origin));
  }
}

/** The policies of all levels as one: each field is taken from the most specific level that gives it. */
export class MergedPolicy {
  /** From the most specific level outwards. */
  readonly #levels: readonly CompiledPolicy[];
  readonly methods: string;
  readonly headers: string;
  readonly exposed: string;
  readonly maxAge: string;
  readonly credentials: boolean;
  readonly privateNetwork: boolean;
  readonly forwardsPreflights: boolean;

  constructor(levels: readonly CompiledPolicy[]) {
    this.#levels = levels;
    const text = (field: TextField): string =>
      levels.find((l) => l.config[field] !== "")?.config[field] ?? "";
    const flag = (
      field:
        | "allow_credentials"
        | "allow_private_network_access"
        | "forward_not_matching_preflights",
    ): boolean | undefined => levels.find((l) => l.config[field] !== undefined)?.config[field];
    this.methods = text("allow_methods");
    this.headers = text("allow_headers");
    this.exposed = text("expose_headers");
    this.maxAge = text("max_age");
    this.credentials = flag("allow_credentials") ?? false;
    this.privateNetwork = flag("allow_private_network_access") ?? false;
    this.forwardsPreflights = flag("forward_not_matching_preflights") ?? true;
  }

  get enabled(): boolean {
    return this.#levels[0]?.enabled ?? false;
  }
  get shadow(): boolean {
    return this.#levels[0]?.shadow ?? false;
  }
  allows(origin: string): boolean {
    return this.#levels.find((level) => level.hasOrigins)?.allows(origin) ?? false;
  }
}
