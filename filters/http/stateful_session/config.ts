import { Duration, type Static, Type, TypedExtension } from "@tsproxy/sdk";

const SPACE = "envoy.extensions.http.stateful_session";
const HeaderState = Type.Object({ name: Type.String({ minLength: 1 }) });

export const Config = Type.Object({
  /** Absent: the filter does nothing. */
  session_state: Type.Optional(
    TypedExtension({
      [`${SPACE}.cookie.v3.CookieBasedSessionState` as const]: Type.Object({
        cookie: Type.Object({
          name: Type.String({ minLength: 1 }),
          ttl: Duration({ default: 0 }),
          path: Type.String({ default: "" }),
          attributes: Type.Array(
            Type.Object({
              name: Type.String({ minLength: 1 }),
              value: Type.String({ default: "" }),
            }),
            { default: [] },
          ),
        }),
      }),
      [`${SPACE}.header.v3.HeaderBasedSessionState` as const]: HeaderState,
      [`${SPACE}.envelope.v3.EnvelopeSessionState` as const]: Type.Object({ header: HeaderState }),
    }),
  ),
  /** A request whose host is gone is answered 503 in the place of another host. */
  strict: Type.Boolean({ default: false }),
});
export type Config = Static<typeof Config>;

export const RouteConfig = Type.Object({
  disabled: Type.Optional(Type.Literal(true)),
  stateful_session: Type.Optional(Config),
});
