import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  /** What is kept of a body, each way; an exchange with more is told as cut. */
  max_body_bytes: UInt32({ default: 65_536 }),
});
export type Config = Static<typeof Config>;
