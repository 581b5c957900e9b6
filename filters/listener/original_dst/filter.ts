import { defineListenerFilter, Type } from "@tsproxy/sdk";

/** With TPROXY a socket already shows the address that the client asked for, so this filter has nothing to do. */
export default defineListenerFilter({
  name: "envoy.filters.listener.original_dst",
  aliases: ["envoy.listener.original_dst"],
  types: ["envoy.extensions.filters.listener.original_dst.v3.OriginalDst"],
  config: Type.Object({}),
  setup(_config, cx) {
    // The address from before an iptables REDIRECT is known to getsockopt(SO_ORIGINAL_DST) alone, which Node does not have.
    cx.log.warn(
      "original_dst sees the address that the socket shows (TPROXY); the one before an iptables REDIRECT cannot be read here",
    );
    return () => ({ onBytes: () => 0 });
  },
});
