import type { LogEntry } from "../access-log.ts";
import type { RequestHeaders, ResponseHeaders } from "../headers.ts";
import type { StreamInfo } from "../http.ts";
import { testStreamInfo } from "./http.ts";

/** An entry as access loggers get it: `logger.log(logEntry({ responseCode: 204 }, requestHeaders("GET", "/a")))`. */
export function logEntry(
  info: Partial<StreamInfo> = {},
  request?: RequestHeaders,
  response?: ResponseHeaders,
): LogEntry {
  return { info: testStreamInfo(info), request, response, trailers: undefined };
}
