import { Duration, RuntimeFeatureFlag, type Static, Type } from "@tsproxy/sdk";

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  max_connections: Type.Integer({ minimum: 1 }),
  delay: Duration({ default: 0 }),
  runtime_enabled: Type.Optional(RuntimeFeatureFlag),
});
export type Config = Static<typeof Config>;
