import { HeaderMap } from "@tsproxy/sdk";
import { KIND } from "./head-builder.ts";

/** Creates a map for one trailer section; it is not reused, so the receiver may keep it. */
export function trailersMap() {
  return { kind: KIND.TRAILERS, headers: new HeaderMap() };
}
