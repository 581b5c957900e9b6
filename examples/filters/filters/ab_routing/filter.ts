import {
  defineHttpFilter,
  type HttpFilter,
  type HttpStream,
  type RequestHeaders,
  type ResponseHeaders,
  type Static,
  Type,
  UInt32,
} from "@tsproxy/sdk";

const Config = Type.Object({
  /** So many of a hundred new visitors get version b. */
  percent_b: UInt32({ default: 50, maximum: 100 }),
  cookie: Type.String({ default: "version" }),
});
type Config = Static<typeof Config>;

/** Marks requests with a version that routes match on, and keeps visitors with the one that they had first. */
class AbRouting implements HttpFilter {
  readonly #config: Config;
  readonly #stream: HttpStream;
  #chosen: string | undefined;

  constructor(config: Config, stream: HttpStream) {
    this.#config = config;
    this.#stream = stream;
  }

  onRequestHeaders(headers: RequestHeaders) {
    const { cookie, percent_b } = this.#config;
    const pattern = new RegExp(`(?:^|; *)${cookie}=([ab])(?:;|$)`);
    let version = pattern.exec(headers.get("cookie") ?? "")?.[1];
    if (version === undefined) version = this.#chosen = Math.random() * 100 < percent_b ? "b" : "a";
    // What a client says of this header is of no account.
    headers.set("x-version", version);
    // The route was perhaps chosen by a filter before this one; it depends on the header now.
    this.#stream.clearRoute();
  }

  onResponseHeaders(headers: ResponseHeaders) {
    if (this.#chosen === undefined) return;
    headers.append("set-cookie", `${this.#config.cookie}=${this.#chosen}; Path=/; Max-Age=86400`);
  }
}

export default defineHttpFilter({
  name: "ab_routing",
  config: Config,
  setup: (config) => (stream) => new AbRouting(config, stream),
});
