import { HeaderMap } from "@tsproxy/sdk";
import { KIND } from "./head-builder.ts";

/** A map for one trailer section: whoever gets it may keep it. */
export function trailersMap() {
  return { kind: KIND.TRAILERS, headers: new HeaderMap() };
}
