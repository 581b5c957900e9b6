import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** Most bytes that are kept of each body, the request's and the response's; a longer one is marked `cut`. */
  max_body_bytes: UInt32({ default: 65_536 }),
});
export type Config = Static<typeof Config>;
