import type { SetupContext } from "@tsproxy/sdk";
import { Refused } from "./answer.ts";

/** Most characters of a pattern: clients choose patterns, and core keeps them compiled, so their size has to be bounded. */
const MAX_PATTERN = 1024;

export type Matcher = (text: string) => boolean;

/** What an admin request asks for: its parameters, and its `accept`. Where a name comes twice the first one counts, as in Envoy. */
export class Query {
  readonly #cx: SetupContext;
  readonly #values = new Map<string, string>();
  readonly #accept: string;

  constructor(query: string, accept: string, cx: SetupContext) {
    this.#cx = cx;
    this.#accept = accept;
    for (const pair of query === "" ? [] : query.split("&")) {
      const equals = pair.indexOf("=");
      const name = decode(equals < 0 ? pair : pair.slice(0, equals));
      if (this.#values.has(name)) continue;
      this.#values.set(name, equals < 0 ? "" : decode(pair.slice(equals + 1)));
    }
  }

  /** All parameters, in the order given. */
  get all(): ReadonlyMap<string, string> {
    return this.#values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): string | undefined {
    return this.#values.get(name);
  }

  /** Whether the client names `type` before `other`. As in Envoy, their order counts and not their weights. */
  prefers(type: string, other: string): boolean {
    const types = this.#accept.split(",").map((range) => range.split(";", 1)[0]!.trim());
    return types.find((each) => each === type || each === other) === type;
  }

  /** JSON was asked for; as in Envoy, any other word is text. */
  get wantsJson(): boolean {
    return this.get("format") === "json";
  }

  /** Makes a test whether a text contains the pattern (RE2); undefined: no parameter. `refuse` words the error of a bad one. */
  matcher(
    name: string,
    refuse: (fault: string, pattern: string) => Refused = invalidRegex,
  ): Matcher | undefined {
    const pattern = this.get(name);
    if (pattern === undefined || pattern === "") return undefined;
    if (pattern.length > MAX_PATTERN) {
      throw new Refused(400, `${name} is longer than ${MAX_PATTERN} characters`);
    }
    try {
      // Compiled by itself first: within the parentheses below, `a)(b` would be valid.
      this.#cx.regex(pattern);
      const anywhere = this.#cx.regex(`[\\s\\S]*(?:${pattern})[\\s\\S]*`);
      return (text) => anywhere.matches(text);
    } catch (error) {
      throw refuse(re2Words(error as Error), pattern);
    }
  }
}

function invalidRegex(fault: string): Refused {
  return new Refused(400, `Invalid re2 regex: ${fault}`);
}

/** RE2's words for faults, which Envoy shows, by the words of core's engine, which are those of Go's regexp package. */
const RE2_WORDS: Readonly<Record<string, string>> = {
  "missing closing )": "missing )",
  "missing closing ]": "missing ]",
  "missing argument to repetition operator": "no argument for repetition operator",
  "invalid nested repetition operator": "bad repetition operator",
  "trailing backslash at end of expression": "trailing \\",
  "invalid named capture": "invalid named capture group",
  "invalid repeat count": "invalid repetition size",
  "invalid or unsupported Perl syntax": "invalid perl operator",
};

/** Words a fault as RE2 does, with the faulty part of the pattern: `missing ): (`. */
function re2Words({ message }: Error): string {
  const found = /error parsing regexp: (.*?)(?:: `(.*)`)?$/s.exec(message);
  const fault = found?.[1] ?? message;
  const words = RE2_WORDS[fault] ?? fault;
  return found?.[2] === undefined ? words : `${words}: ${found[2]}`;
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
