import {
  FLAG,
  type FormatSource,
  headerName,
  type RequestHeaders,
  type SetupContext,
  SPAN,
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
    headers.present = presentIn(headers);
  }
}

/** The bits of `present` after edits, so that what is decided next sees the head as if it had arrived like this. */
function presentIn(headers: RequestHeaders): number {
  const { spans, added } = headers;
  let present = 0;
  const note = (known: number) => {
    if (known !== 0) present |= 1 << known;
  };
  for (let i = 0; i < headers.count * SPAN; i += SPAN) {
    const flags = spans[i + 5]!;
    if ((flags & FLAG.REMOVED) === 0) note(flags & FLAG.KNOWN);
  }
  for (let k = 0; k < added.length; k += 2) note(headerName(added[k]!).known);
  for (const line of headers.lines) note(line.name.known);
  return present;
}
