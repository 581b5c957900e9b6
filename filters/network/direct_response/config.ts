import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  response: Type.Optional(
    Type.Object({
      inline_string: Type.Optional(Type.String()),
      /** Base64, as protobuf writes bytes in JSON. */
      inline_bytes: Type.Optional(Type.String()),
    }),
  ),
});
export type Config = Static<typeof Config>;
