import { AccessLogList, type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({
  address: Type.Optional(
    Type.Object({
      socket_address: Type.Optional(
        Type.Object({
          address: Type.String({ minLength: 1 }),
          port_value: UInt32({ default: 0, maximum: 65_535 }),
          protocol: Type.Optional(Type.Literal("TCP")),
        }),
      ),
      pipe: Type.Optional(
        Type.Object({
          path: Type.String({ minLength: 1 }),
          /** Permissions of the socket's file; 0: as the umask says. */
          mode: UInt32({ default: 0, maximum: 511 }),
        }),
      ),
    }),
  ),
  access_log: AccessLogList(),
  /** Where /cpuprofiler writes; core reads it. */
  profile_path: Type.String({ default: "" }),
  /** Older than `access_log`: a file with a line of the default format for each request. */
  access_log_path: Type.Optional(Type.String()),
});
export type Config = Static<typeof Config>;
