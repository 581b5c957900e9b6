import { defineListenerFilter, Type } from "@tsproxy/sdk";

export default defineListenerFilter({
  name: "envoy.filters.listener.original_dst",
  aliases: ["envoy.listener.original_dst"],
  types: ["envoy.extensions.filters.listener.original_dst.v3.OriginalDst"],
  config: Type.Object({}),
  setup(_config, cx) {
    // With TPROXY the address that the socket shows is the one that the client asked for already. What iptables' REDIRECT has
    // put in its place, only getsockopt(SO_ORIGINAL_DST) would tell.
    cx.log.warn(
      "original_dst sees the address that the socket shows (TPROXY); the one before an iptables REDIRECT cannot be read here",
    );
    return () => ({ onBytes: () => 0 });
  },
});
