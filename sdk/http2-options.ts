import { ConfigError } from "./extension.ts";
import { Duration, type Static, Type, UInt32 } from "./schema.ts";

const LARGEST_WINDOW = 0x7fff_ffff;

/** Envoy's `http2_protocol_options`, the same for both directions. */
export const Http2ProtocolOptions = Type.Object({
  hpack_table_size: Type.Optional(UInt32()),
  max_concurrent_streams: Type.Optional(UInt32({ minimum: 1, maximum: LARGEST_WINDOW })),
  initial_stream_window_size: Type.Optional(UInt32({ minimum: 65_535, maximum: LARGEST_WINDOW })),
  initial_connection_window_size: Type.Optional(
    UInt32({ minimum: 65_535, maximum: LARGEST_WINDOW }),
  ),
  allow_connect: Type.Optional(Type.Boolean()),
  max_outbound_frames: Type.Optional(UInt32({ minimum: 1 })),
  max_outbound_control_frames: Type.Optional(UInt32({ minimum: 1 })),
  max_consecutive_inbound_frames_with_empty_payload: Type.Optional(UInt32()),
  max_inbound_priority_frames_per_stream: Type.Optional(UInt32()),
  max_inbound_window_update_frames_per_data_frame_sent: Type.Optional(UInt32({ minimum: 1 })),
  /** The older name of the next field, which wins. */
  stream_error_on_invalid_http_messaging: Type.Optional(Type.Boolean()),
  override_stream_error_on_invalid_http_message: Type.Optional(Type.Boolean()),
  custom_settings_parameters: Type.Optional(
    Type.Array(
      Type.Object({
        identifier: UInt32({ minimum: 1, maximum: 0xffff }),
        value: UInt32(),
      }),
    ),
  ),
  connection_keepalive: Type.Optional(
    Type.Object({
      interval: Type.Optional(Duration()),
      timeout: Duration(),
      interval_jitter: Type.Optional(Type.Object({ value: Type.Number({ minimum: 0 }) })),
      connection_idle_interval: Type.Optional(Duration()),
    }),
  ),
});
export type Http2ProtocolOptions = Static<typeof Http2ProtocolOptions>;

/** The options that are SETTINGS as well (RFC 9113 §6.5.2), by identifier. */
const NAMED_SETTINGS: ReadonlyMap<number, keyof Http2ProtocolOptions> = new Map([
  [1, "hpack_table_size"],
  [3, "max_concurrent_streams"],
  [4, "initial_stream_window_size"],
]);
const ENABLE_PUSH = 2;
const ENABLE_CONNECT_PROTOCOL = 8;

/** Refuses what the schema cannot: `custom_settings_parameters` against each other and the other options. `at`: the options' path. */
export function checkHttp2Options(config: Http2ProtocolOptions = {}, at: string): void {
  const values = new Map<number, number>();
  for (const [k, { identifier, value }] of (config.custom_settings_parameters ?? []).entries()) {
    const refuse = (why: string): never => {
      throw new ConfigError(`${at}.custom_settings_parameters[${k}]`, why);
    };
    const named = NAMED_SETTINGS.get(identifier);
    if (identifier === ENABLE_PUSH && value === 1) refuse("server push is not supported");
    if (identifier === ENABLE_CONNECT_PROTOCOL)
      refuse("write allow_connect, the only option for this setting");
    if (named !== undefined && config[named] !== undefined)
      refuse(`sets ${named}, which is there by its name too; keep one of them`);
    const before = values.get(identifier);
    if (before !== undefined && before !== value)
      refuse(`setting ${identifier} is already ${before}; keep one of them`);
    values.set(identifier, value);
  }
}

/** `Http2ProtocolOptions` with Envoy's defaults. Sizes are in bytes. */
export interface Http2Options {
  readonly hpackTableSize: number;
  readonly maxConcurrentStreams: number;
  readonly initialStreamWindow: number;
  readonly initialConnectionWindow: number;
  readonly allowConnect: boolean;
  readonly maxOutboundFrames: number;
  readonly maxOutboundControlFrames: number;
  readonly maxEmptyFrames: number;
  readonly maxPriorityFramesPerStream: number;
  readonly maxWindowUpdatesPerDataFrame: number;
  /** A malformed message ends its stream, not the connection. */
  readonly streamErrors: boolean;
  /** Flat [identifier, value, …]. */
  readonly customSettings: readonly number[];
  readonly keepAlive: Http2KeepAlive | undefined;
}

/** When a connection is pinged, and how long its answer may take. */
export interface Http2KeepAlive {
  /** 0: none. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly jitterPercent: number;
  /** A connection that was idle for longer is pinged before its next stream; 0: it is not. */
  readonly idleMs: number;
}

/** The options that a codec takes, with Envoy's defaults for what the config does not say. */
export function http2Options(config: Http2ProtocolOptions = {}): Http2Options {
  const keepAlive = config.connection_keepalive;
  return {
    hpackTableSize: config.hpack_table_size ?? 4096,
    maxConcurrentStreams: config.max_concurrent_streams ?? 1024,
    initialStreamWindow: config.initial_stream_window_size ?? 16 * 1024 * 1024,
    initialConnectionWindow: config.initial_connection_window_size ?? 24 * 1024 * 1024,
    allowConnect: config.allow_connect ?? false,
    maxOutboundFrames: config.max_outbound_frames ?? 10_000,
    maxOutboundControlFrames: config.max_outbound_control_frames ?? 1_000,
    maxEmptyFrames: config.max_consecutive_inbound_frames_with_empty_payload ?? 1,
    maxPriorityFramesPerStream: config.max_inbound_priority_frames_per_stream ?? 100,
    maxWindowUpdatesPerDataFrame: config.max_inbound_window_update_frames_per_data_frame_sent ?? 10,
    streamErrors:
      config.override_stream_error_on_invalid_http_message ??
      config.stream_error_on_invalid_http_messaging ??
      false,
    customSettings: (config.custom_settings_parameters ?? []).flatMap((p) => [
      p.identifier,
      p.value,
    ]),
    keepAlive:
      keepAlive === undefined
        ? undefined
        : {
            intervalMs: keepAlive.interval ?? 0,
            timeoutMs: keepAlive.timeout,
            jitterPercent: keepAlive.interval_jitter?.value ?? 15,
            idleMs: keepAlive.connection_idle_interval ?? 0,
          },
  };
}
