import {
  defineHttpFilter,
  type HttpFilter,
  type RequestHeaders,
  reply,
  type SetupContext,
  type Static,
  Type,
  utf8Encode,
} from "@tsproxy/sdk";
import { decodeBase64Url, Keys } from "./keys.ts";

const Config = Type.Object({
  /** Requests to other paths pass. */
  prefix: Type.String({ default: "/" }),
  /** Where the keys are: a cluster and a path, as `cx.fetch` takes them. */
  keys: Type.String({ examples: ["keys:/jwks.json"] }),
  issuer: Type.String({ examples: ["https://issuer.example"] }),
});
type Config = Static<typeof Config>;

interface Claims {
  readonly iss?: unknown;
  readonly sub?: unknown;
  readonly exp?: unknown;
  readonly nbf?: unknown;
}

/** Lets a request pass that has a token (RFC 7519) with a good signature; the upstream hears who it is. */
class Jwt implements HttpFilter {
  readonly #config: Config;
  readonly #keys: Keys;
  readonly #cx: SetupContext;

  constructor(config: Config, keys: Keys, cx: SetupContext) {
    this.#config = config;
    this.#keys = keys;
    this.#cx = cx;
  }

  // The promise holds this request back, and no other, until it settles.
  async onRequestHeaders(headers: RequestHeaders) {
    headers.remove("x-user");
    if (!headers.path.startsWith(this.#config.prefix)) return undefined;
    const token = /^Bearer ([\w-]+\.[\w-]+\.[\w-]+)$/i.exec(
      headers.get("authorization") ?? "",
    )?.[1];
    if (token === undefined) return refusal("no token");
    try {
      const claims = await this.#claims(token);
      if (typeof claims === "string") return refusal(claims);
      headers.set("x-user", String(claims.sub ?? ""));
      return undefined;
    } catch (error) {
      this.#cx.log.warn("a token could not be checked", { reason: String(error) });
      return reply(503, { body: "tokens cannot be checked now\n", details: "jwt_no_keys" });
    }
  }

  /** What the token says, or what is wrong with it. */
  async #claims(token: string): Promise<Claims | string> {
    const [head, body, signature] = token.split(".") as [string, string, string];
    const { alg, kid } = parsed(head) as { alg?: unknown; kid?: unknown };
    if (alg !== "RS256" || typeof kid !== "string") return "not signed as we want it";
    const key = await this.#keys.get(kid);
    if (key === undefined) return "signed by nobody we know";
    const data = utf8Encode(`${head}.${body}`);
    if (!(await this.#keys.verify(key, decodeBase64Url(signature), data)))
      return "a wrong signature";
    const claims = parsed(body) as Claims;
    const now = Date.now() / 1000;
    if (claims.iss !== this.#config.issuer) return "of another issuer";
    if (typeof claims.exp !== "number" || claims.exp <= now) return "too old";
    if (typeof claims.nbf === "number" && claims.nbf > now) return "too early";
    return claims;
  }
}

/** `{}` for what is no JSON: it then lacks everything. */
function parsed(part: string): object {
  try {
    const value: unknown = JSON.parse(String.fromCharCode(...decodeBase64Url(part)));
    return typeof value === "object" && value !== null ? value : {};
  } catch {
    return {};
  }
}

function refusal(reason: string) {
  return reply(401, {
    body: `${reason}\n`,
    headers: [["www-authenticate", "Bearer"]],
    details: "jwt_refused",
  });
}

export default defineHttpFilter({
  name: "jwt",
  config: Config,
  setup(config, cx) {
    const keys = new Keys(config.keys, cx);
    return () => new Jwt(config, keys, cx);
  },
});
