import { defineTransport, Type } from "@tsproxy/sdk";

/** Bytes pass as they are. */
export default defineTransport({
  name: "envoy.transport_sockets.raw_buffer",
  aliases: ["raw_buffer"],
  types: ["envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer"],
  config: Type.Object({}),
  setup: () => ({
    secure: false,
    accept: () => undefined,
    connect: () => undefined,
  }),
});
