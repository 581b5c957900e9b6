import type { SourceBytes } from "@tsproxy/sdk";
import { fileError } from "../file-error.ts";
import type { Report } from "./diagnostic.ts";
import type { MapNode } from "./document.ts";
import type { NamedFiles } from "./named-files.ts";

/** Limit on the size of each file that a config names. */
const MOST_BYTES = 16 * 1024 * 1024;

/** Reads the text of Envoy's DataSource. Undefined: an error has been reported. */
export function readDataSource(node: MapNode, report: Report): string | undefined {
  const source = readSource(node, "text", report);
  return source !== undefined && "text" in source ? source.text : undefined;
}

/**
 * Reads Envoy's DataSource; files are read when the config is, as Envoy does. What is not UTF-8 is in base64, or an error where only
 * text works. Undefined: an error has been reported.
 */
export function readSource(
  node: MapNode,
  holds: "text" | "bytes",
  report: Report,
): SourceBytes | undefined {
  for (const form of ["inline_string", "inline_bytes", "filename", "environment_variable"]) {
    const given = node.get(form);
    if (given?.kind !== "scalar") continue;
    if (given.invalid) return undefined;
    const text = String(given.value);
    if (form === "inline_string") return { text };
    const bytes = bytesOf(form, text, report.files);
    if (typeof bytes === "string") {
      report.error(given.place, bytes);
      return undefined;
    }
    const decoded = textOf(bytes);
    if (decoded !== undefined) return { text: decoded };
    if (holds === "bytes") return { base64: Buffer.from(bytes).toString("base64") };
    report.error(given.place, "is not UTF-8; only text works here");
    return undefined;
  }
  report.error(
    node.place,
    "one of filename, inline_string, inline_bytes and environment_variable is required",
  );
  return undefined;
}

/** A string is an error message. */
function bytesOf(form: string, text: string, files: NamedFiles): Uint8Array | string {
  if (form === "inline_bytes") return Buffer.from(text, "base64");
  if (form === "environment_variable") {
    const value = process.env[text];
    return value === undefined ? `there is no environment variable "${text}"` : Buffer.from(value);
  }
  try {
    const bytes = files.read(text);
    return bytes.length > MOST_BYTES ? `file "${text}" has more than ${MOST_BYTES} bytes` : bytes;
  } catch (error) {
    return `file "${text}" cannot be read: ${fileError(error)}`;
  }
}

/** Undefined: the bytes are not UTF-8. */
function textOf(bytes: Uint8Array): string | undefined {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}
