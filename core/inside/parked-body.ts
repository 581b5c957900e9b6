// Hot path: bodies that pass a sandboxed filter (test/bench/sandbox.ts).
import { type HeaderMap, headerName, type LastChunk, lastChunk } from "@tsproxy/sdk";
import type { Gate } from "./gate.ts";
import { recordSize } from "./parked.ts";
import type { Lane } from "./parked-lane.ts";
import { RECORD, RECORD_FLAG } from "./sandbox/layout.ts";

const CONTENT_LENGTH = headerName("content-length");
/** Longer chunks go through core, which copies them natively. */
const GATE_CHUNK_MAX = 4096;

/** Sends the lane's chunk by the gate itself. `part`: flags that name it. False: it is too long for that, or there is no room now. */
export function sendChunkAt(
  gate: Gate,
  lane: Lane,
  part: number,
  token: number,
  use: number,
): boolean {
  const { memory, at, end } = lane.chunk!;
  const size = end - at;
  if (size > GATE_CHUNK_MAX) return false;
  const flags = part | RECORD_FLAG.ANSWER | (lane.endStream ? RECORD_FLAG.END_STREAM : 0);
  const whole = recordSize(0, size);
  const w = gate.begin(whole, lane.kind, flags, token, use);
  if (w < 0) return false;
  gate.words[w + RECORD.RANGE_SIZE] = size;
  gate.memory.set(memory.subarray(at, end), w * 4 + recordSize(0, 0));
  gate.send(token, whole);
  lane.waitAt(gate);
  return true;
}

/** A copy of the body that an answer brings: the PARTs that came before it, and its own bytes. */
export function answeredBody(lane: Lane, memory: Uint8Array, at: number, end: number): Uint8Array {
  const parts = lane.received;
  if (parts === undefined) return memory.slice(at, end);
  const whole = new Uint8Array(lane.receivedSize + end - at);
  let to = 0;
  for (const part of parts) {
    whole.set(part, to);
    to += part.length;
  }
  whole.set(memory.subarray(at, end), to);
  return whole;
}

/**
 * Replaces the bytes of the lane's chunk, and its content-length in `head` as long as that is held. False: the head has gone on with a
 * content-length that the new body contradicts.
 */
export function replaceBody(lane: Lane, head: HeaderMap | undefined, body: Uint8Array): boolean {
  const chunk = lane.chunk!;
  if (body.length !== chunk.end - chunk.at) {
    const told = head?.get(CONTENT_LENGTH);
    if (head !== undefined && told !== undefined && told !== String(body.length)) {
      if (!lane.held) return false;
      if (lane.endStream) head.set(CONTENT_LENGTH, String(body.length));
      else head.remove(CONTENT_LENGTH);
    }
  }
  chunk.replace(body);
  return true;
}

/**
 * The last bytes of a message: from a trailers hook, or from a headers hook as the body of a message that had none. A string says why
 * there must be none.
 */
export function answeredLastChunk(
  lane: Lane,
  head: HeaderMap | undefined,
  bytes: Uint8Array,
): LastChunk | string {
  const isHead = lane.chunk === undefined && !lane.isTrailers;
  if (!lane.isTrailers && !(isHead && lane.endStream)) return "a last chunk out of place";
  const told = head?.get(CONTENT_LENGTH);
  if (bytes.length > 0 && told !== undefined && !(isHead && told === String(bytes.length)))
    return "another body than its content-length tells";
  return lastChunk(bytes);
}
