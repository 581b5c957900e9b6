import { compileStringMatch, type Regex, type StringMatcher } from "@tsproxy/sdk";
import { BOUNDS, type Bounds } from "./histogram.ts";
import type { Rule } from "./tags.ts";

/** What admin reads of Envoy's `metrics.v3.StatsConfig`, as the config dump has it. */
interface Config {
  readonly stats_tags?: readonly {
    readonly tag_name?: string;
    readonly regex?: string;
    readonly fixed_value?: string;
  }[];
  readonly use_all_default_tags?: boolean;
  readonly histogram_bucket_settings?: readonly {
    readonly match: StringMatcher;
    readonly buckets?: readonly number[];
  }[];
}

/** The bootstrap's `stats_config`, made ready for a page. */
export class StatsConfig {
  readonly #config: Config;
  readonly #regex: (pattern: string) => Regex;

  constructor(config: unknown, regex: (pattern: string) => Regex) {
    this.#config = (config ?? {}) as Config;
    this.#regex = regex;
  }

  /** Bounds of the buckets of a histogram: of the first setting that matches its name, else Envoy's own. */
  get bounds(): (name: string) => Bounds {
    const settings = (this.#config.histogram_bucket_settings ?? [])
      .filter(({ buckets = [] }) => buckets.length > 0)
      .map(({ match, buckets = [] }) => ({
        matches: compileStringMatch(match, "match", { regex: this.#regex }),
        bounds: [...buckets].sort((a, b) => a - b),
      }));
    return (name) => settings.find(({ matches }) => matches(name))?.bounds ?? BOUNDS;
  }

  /** Tags that all stats have. */
  get fixedTags(): readonly (readonly [string, string])[] {
    return (this.#config.stats_tags ?? []).flatMap(({ tag_name, fixed_value }) =>
      fixed_value === undefined || tag_name === undefined ? [] : [[tag_name, fixed_value] as const],
    );
  }

  /** The config's own rules, which are applied after Envoy's default ones; and which of these the config leaves in force. */
  get rules(): { readonly own: readonly Rule[]; readonly isDefault: (tag: string) => boolean } {
    const tags = this.#config.stats_tags ?? [];
    const own = tags.flatMap(({ tag_name = "", regex }) => {
      if (regex === undefined || regex === "") return [];
      try {
        // Core has refused patterns that RE2 does not read in the same way.
        return [{ tag: tag_name, pattern: new RegExp(regex, "d") }];
      } catch {
        return [];
      }
    });
    const named = new Set(
      tags
        .filter(({ regex, fixed_value }) => !regex && fixed_value === undefined)
        .map((t) => t.tag_name),
    );
    const all = this.#config.use_all_default_tags !== false;
    return { own, isDefault: (tag) => all || named.has(tag) };
  }
}
