import { Duration, Enum, rbacFields, type Static, Type } from "@tsproxy/sdk";

/** Envoy's `network.rbac.v3.RBAC`. */
export const Config = Type.Object({
  ...rbacFields,
  stat_prefix: Type.String({ minLength: 1 }),
  enforcement_type: Enum(["ONE_TIME_ON_FIRST_BYTE", "CONTINUOUS"], {
    default: "ONE_TIME_ON_FIRST_BYTE",
  }),
  /** How long a denied client is kept waiting before its connection is closed. */
  delay_deny: Duration({ default: 0 }),
});
export type Config = Static<typeof Config>;
