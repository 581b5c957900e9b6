import { type Static, Type, UInt32 } from "@tsproxy/sdk";

export const Config = Type.Object({ max_request_bytes: UInt32({ minimum: 1 }) });
export type Config = Static<typeof Config>;

/** Envoy's BufferPerRoute. */
export const RouteConfig = Type.Object({
  disabled: Type.Optional(Type.Literal(true)),
  buffer: Type.Optional(Config),
});
export type RouteConfig = Static<typeof RouteConfig>;
