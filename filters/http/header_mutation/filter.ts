// Hot path: every request and response.
import {
  defineHttpFilter,
  type HeaderMap,
  type HttpFilter,
  type HttpStream,
  type RequestHeaders,
  type ResponseHeaders,
} from "@tsproxy/sdk";
import { Config, RouteConfig } from "./config.ts";
import { CompiledMutations } from "./mutations.ts";

/** The filter's own mutations first, then those of the routes. */
class HeaderMutationFilter implements HttpFilter {
  readonly #own: CompiledMutations;
  readonly #outermostFirst: boolean;
  readonly #stream: HttpStream;
  /** Those of the routes, in the order in which they are applied. */
  #routes: readonly CompiledMutations[] | undefined = undefined;

  constructor(own: CompiledMutations, outermostFirst: boolean, stream: HttpStream) {
    this.#own = own;
    this.#outermostFirst = outermostFirst;
    this.#stream = stream;
  }

  get #ofRoutes(): readonly CompiledMutations[] {
    if (this.#routes === undefined) {
      const levels = this.#stream.routeConfigs as readonly CompiledMutations[];
      const reverse = !this.#outermostFirst && levels.length > 1;
      this.#routes = reverse ? [...levels].reverse() : levels;
    }
    return this.#routes;
  }

  onRequestHeaders(headers: RequestHeaders) {
    this.#own.editRequest(headers, this.#stream);
    for (const route of this.#ofRoutes) route.editRequest(headers, this.#stream);
  }
  onRequestTrailers(trailers: HeaderMap) {
    this.#own.editRequestTrailers(trailers, this.#stream);
    for (const route of this.#ofRoutes) route.editRequestTrailers(trailers, this.#stream);
  }
  onResponseHeaders(headers: ResponseHeaders) {
    this.#own.editResponse(headers, this.#stream);
    for (const route of this.#ofRoutes) route.editResponse(headers, this.#stream);
  }
  onResponseTrailers(trailers: HeaderMap) {
    this.#own.editResponseTrailers(trailers, this.#stream);
    for (const route of this.#ofRoutes) route.editResponseTrailers(trailers, this.#stream);
  }
}

export default defineHttpFilter({
  name: "envoy.filters.http.header_mutation",
  types: ["envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"],
  config: Config,
  routeConfig: RouteConfig,
  setupRoute: (config, cx) => new CompiledMutations(config.mutations, cx),
  setup(config, cx) {
    const own = new CompiledMutations(config.mutations, cx);
    const outermostFirst = config.most_specific_header_mutations_wins;
    return (stream) => new HeaderMutationFilter(own, outermostFirst, stream);
  },
});
