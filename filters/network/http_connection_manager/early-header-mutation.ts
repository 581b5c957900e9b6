import {
  type FormatSource,
  type RequestHeaders,
  type SetupContext,
  type Static,
  Type,
  TypedExtension,
} from "@tsproxy/sdk";
import { compileHeaderMutations, HeaderMutation } from "./header-mutation.ts";

/** An entry of `early_header_mutation_extensions`. */
export const EarlyHeaderMutation = TypedExtension({
  "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation": Type.Object({
    mutations: Type.Array(HeaderMutation, { minItems: 1 }),
  }),
});
export type EarlyHeaderMutation = Static<typeof EarlyHeaderMutation>;

/** Edits request heads in the order of the config, before the client is found and the route is chosen. */
export class EarlyHeaderMutations {
  readonly #steps: readonly ((headers: RequestHeaders, source: FormatSource) => void)[];

  constructor(config: readonly EarlyHeaderMutation[], path: string, cx: SetupContext) {
    this.#steps = config.map((extension, e) =>
      compileHeaderMutations(
        extension.typed_config.mutations,
        `${path}[${e}].typed_config.mutations`,
        cx,
      ),
    );
  }

  apply(headers: RequestHeaders, source: FormatSource): void {
    for (const step of this.#steps) step(headers, source);
  }
}
