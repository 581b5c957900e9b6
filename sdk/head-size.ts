import type { FormatSource } from "./format.ts";
import type { HeaderMap } from "./headers.ts";

/** Envoy's `byteSize`: names and values, those of HTTP/2's pseudo headers among them, whatever the protocol. */
function sizeOf(headers: HeaderMap): number {
  let size = 0;
  for (const [name, value] of headers) {
    size += (name.toLowerCase() === "host" ? ":authority".length : name.length) + value.length;
  }
  return size;
}

export function requestSize({ request }: FormatSource): number {
  // A head that could not be read has no headers.
  if (request === undefined || request.method === "") return 0;
  const { method, path, scheme } = request;
  // One that is refused before its route is looked for has no scheme yet.
  const pseudo =
    pairSize(":method", method) + pairSize(":path", path) + pairSize(":scheme", scheme);
  return sizeOf(request) + pseudo;
}

function pairSize(name: string, value: string): number {
  return value === "" ? 0 : name.length + value.length;
}

export function responseSize({ info, response }: FormatSource): number {
  if (response === undefined) return 0;
  const added = info.downstreamWire?.saidClose === true ? "connectionclose".length : 0;
  return sizeOf(response) + ":status200".length + added;
}

export function trailersSize({ trailers }: FormatSource): number {
  return trailers === undefined ? 0 : sizeOf(trailers);
}
