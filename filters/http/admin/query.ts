import type { SetupContext } from "@tsproxy/sdk";
import { Refused } from "./answer.ts";

/** Characters of a pattern. Core keeps compiled patterns, and clients choose their text, so it has to be bounded. */
const MAX_PATTERN = 1024;

export type Matcher = (text: string) => boolean;

/** The parameters of an admin request. Where a name comes twice the first one counts, as in Envoy. */
export class Query {
  readonly #cx: SetupContext;
  readonly #values = new Map<string, string>();

  constructor(query: string, cx: SetupContext) {
    this.#cx = cx;
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

  /** JSON was asked for; as in Envoy, any other word is text. */
  get wantsJson(): boolean {
    return this.get("format") === "json";
  }

  /** Finds the pattern anywhere in a text (RE2). Undefined: there is no such parameter. `refuse` words what RE2 says of it. */
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
      // Compiled by itself first: what is put around it would make `a)(b` valid.
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

/** Envoy shows RE2's names of faults; core's engine has those of Go's regexp package. */
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

/** `missing ): (`: the fault and where it is. */
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
