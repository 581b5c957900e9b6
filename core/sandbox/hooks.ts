import { HOOK, HOOK_NAMES, type HookMask, STREAM_PARTS } from "../inside/sandbox/layout.ts";

/**
 * What a package may have, read from its bundled text: a hook whose name stands nowhere in it cannot exist. Filters are made
 * for each stream and may differ, so nothing short of this is safe to know beforehand; what the text names and a stream's
 * filter lacks, the first verdict of that stream tells.
 */
export function hooksOf(code: string): HookMask {
  let hooks = 0;
  for (const [name, bit] of HOOK_NAMES) if (new RegExp(`\\b${name}\\b`).test(code)) hooks |= bit;
  // `cx.log.info` is no reading of `stream.info`.
  const text = code.replace(/\blog\s*\.\s*info\b/g, "");
  for (const [part, bit] of STREAM_PARTS) if (new RegExp(`\\b${part}\\b`).test(text)) hooks |= bit;
  if (/\brouteConfigs?\b/.test(code)) hooks |= HOOK.ROUTE_CONFIG;
  // The second reads them for whoever asks it.
  if (/\b(activeRequests|BoundedLoads)\b/.test(code)) hooks |= HOOK.ACTIVE_REQUESTS;
  return hooks;
}
