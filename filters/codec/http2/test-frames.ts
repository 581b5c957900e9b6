import { TYPE } from "./frame.ts";

/** A frame that a test sends or expects; payload with one char per byte. */
export interface Frame {
  readonly type: number;
  readonly flags: number;
  readonly id: number;
  readonly payload: string;
}

export const uint32 = (value: number): string =>
  String.fromCharCode(value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255);
export const setting = (id: number, value: number): string =>
  String.fromCharCode(id >> 8, id & 255) + uint32(value);
export const chars = (text: string): number[] => [...text].map((char) => char.charCodeAt(0));

export function frame(type: number, flags: number, id: number, payload = ""): string {
  const size = payload.length;
  const head = String.fromCharCode(size >> 16, (size >> 8) & 255, size & 255, type, flags);
  return head + uint32(id) + payload;
}

/** Encodes a field as a literal without indexing; strings of up to 126 bytes. */
export const literal = (name: string, value: string): string =>
  `\0${String.fromCharCode(name.length)}${name}${String.fromCharCode(value.length)}${value}`;

/** Header blocks of `GET http://a/` and `POST http://a/`. */
export const GET = "\x82\x86\x84\x01\x01a";
export const POST = "\x83\x86\x84\x01\x01a";

export function framesOf(bytes: string): Frame[] {
  const frames: Frame[] = [];
  let at = bytes.startsWith("PRI") ? 24 : 0;
  while (at < bytes.length) {
    const [a = 0, b = 0, c = 0, type = 0, flags = 0] = chars(bytes.slice(at, at + 5));
    const size = (a << 16) | (b << 8) | c;
    const [d = 0, e = 0, f = 0, g = 0] = chars(bytes.slice(at + 5, at + 9));
    const id = (d << 24) | (e << 16) | (f << 8) | g;
    if (at + 9 + size > bytes.length) throw new Error("a frame is cut");
    frames.push({ type, flags, id, payload: bytes.slice(at + 9, at + 9 + size) });
    at += 9 + size;
  }
  return frames;
}

const names = new Map(Object.entries(TYPE).map(([name, type]) => [type as number, name]));

/** Describes each frame as `TYPE id` with the relevant part of its payload. */
export function framesText(bytes: string | readonly Frame[]): string[] {
  const frames = typeof bytes === "string" ? framesOf(bytes) : bytes;
  return frames.map(({ type, flags, id, payload }) => {
    const text = `${names.get(type)} ${id}`;
    const number = (at: number) =>
      chars(payload.slice(at, at + 4)).reduce((all, byte) => all * 256 + byte, 0);
    const end = (flags & 1) !== 0 ? " end" : "";
    switch (type) {
      case TYPE.DATA:
        return `${text} ${payload}${end}`;
      case TYPE.HEADERS:
        return text + end;
      case TYPE.RST_STREAM:
        return `${text} code=${number(0)}`;
      case TYPE.GOAWAY:
        return `${text} last=${number(0)} code=${number(4)}`;
      case TYPE.WINDOW_UPDATE:
        return `${text} by=${number(0)}`;
      default:
        return text;
    }
  });
}
