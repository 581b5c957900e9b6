import {
  type Counter,
  defineHttpFilter,
  type HttpFilter,
  type RequestHeaders,
  type ResponseHeaders,
  reply,
  type Static,
  Type,
} from "@tsproxy/sdk";

const Config = Type.Object({ text: Type.String({ default: "Hello" }) });

/** Answers /hello itself; signs every other response. */
class Greeting implements HttpFilter {
  readonly #config: Static<typeof Config>;
  readonly #greeted: Counter;

  constructor(config: Static<typeof Config>, greeted: Counter) {
    this.#config = config;
    this.#greeted = greeted;
  }

  onRequestHeaders(headers: RequestHeaders) {
    if (!headers.path.startsWith("/hello")) return;
    this.#greeted.inc();
    const name = /[?&]name=(\w+)/.exec(headers.path)?.[1] ?? "stranger";
    return reply(200, { body: `${this.#config.text}, ${name}!\n` });
  }

  onResponseHeaders(headers: ResponseHeaders) {
    headers.set("x-greeting", this.#config.text);
  }
}

export default defineHttpFilter({
  name: "greeting",
  config: Config,
  setup: (config, cx) => {
    const greeted = cx.stats.counter("greeting.greeted");
    return () => new Greeting(config, greeted);
  },
});
