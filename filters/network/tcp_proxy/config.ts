import { AccessLogList, Duration, type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  stat_prefix: Type.String({ minLength: 1 }),
  cluster: Type.Optional(Type.String({ minLength: 1 })),
  weighted_clusters: Type.Optional(
    Type.Object({
      clusters: Type.Array(
        Type.Object({
          name: Type.String({ minLength: 1 }),
          weight: UInt32({ minimum: 1 }),
        }),
        { minItems: 1 },
      ),
    }),
  ),
  /** 0 turns it off. */
  idle_timeout: Duration({ default: 3_600_000 }),
  max_connect_attempts: UInt32({ default: 1, minimum: 1 }),
  max_downstream_connection_duration: Type.Optional(Duration()),
  access_log: AccessLogList(),
});
export type Config = Static<typeof Config>;
