import { type Static, SubstitutionFormatString, Type } from "@tsproxy/sdk";

export const Config = Type.Object({ log_format: Type.Optional(SubstitutionFormatString) });
export type Config = Static<typeof Config>;
