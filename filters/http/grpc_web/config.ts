import { type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({});
export type Config = Static<typeof Config>;
