import { HOOK, HOOK_NAMES, type HookMask, STREAM_PARTS } from "../inside/sandbox/layout.ts";

/**
 * The hooks and parts of streams that a package may use, read from its bundled source: a name that does not occur in it cannot be used.
 * A factory may return a different filter for each stream, so more cannot be known before; the first verdict of each stream tells
 * which of these hooks its filter really has.
 */
export function hooksOf(code: string): HookMask {
  let hooks = 0;
  for (const [name, bit] of HOOK_NAMES) if (new RegExp(`\\b${name}\\b`).test(code)) hooks |= bit;
  // `cx.log.info` is no reading of `stream.info`.
  const text = code.replace(/\blog\s*\.\s*info\b/g, "");
  for (const [part, bit] of STREAM_PARTS) if (new RegExp(`\\b${part}\\b`).test(text)) hooks |= bit;
  if (/\brouteConfigs?\b/.test(code)) hooks |= HOOK.ROUTE_CONFIG;
  // `BoundedLoads` of the SDK reads the numbers of active requests for its caller.
  if (/\b(activeRequests|BoundedLoads)\b/.test(code)) hooks |= HOOK.ACTIVE_REQUESTS;
  return hooks;
}
