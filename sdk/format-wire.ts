import type { WireBytes } from "./codec.ts";
import type { FormatSource } from "./format.ts";
import { type Make, plain } from "./format-make.ts";

/** `%<side>_…_BYTES_SENT%` and `%<side>_…_BYTES_RECEIVED%` of one connection. */
export function wireCommands(
  side: "DOWNSTREAM" | "UPSTREAM",
  wireOf: (source: FormatSource) => WireBytes | undefined,
): Record<string, Make> {
  const of = (read: (wire: WireBytes) => number | undefined) =>
    plain((source) => {
      const wire = wireOf(source);
      return (wire && read(wire)) ?? 0;
    });
  return {
    [`${side}_WIRE_BYTES_RECEIVED`]: of((wire) => wire.wireReceived),
    [`${side}_WIRE_BYTES_SENT`]: of((wire) => wire.wireSent),
    [`${side}_HEADER_BYTES_RECEIVED`]: of((wire) => wire.headerReceived),
    [`${side}_HEADER_BYTES_SENT`]: of((wire) => wire.headerSent),
    [`${side}_DECOMPRESSED_HEADER_BYTES_RECEIVED`]: of(
      (wire) => wire.fieldsReceived ?? wire.headerReceived,
    ),
    [`${side}_DECOMPRESSED_HEADER_BYTES_SENT`]: of((wire) => wire.fieldsSent ?? wire.headerSent),
  };
}
