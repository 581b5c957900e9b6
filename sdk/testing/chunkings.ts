/** Every way to cut a text into chunks; if it has more than 12 chars: whole, each way to cut it in two, and in single chars. */
export function chunkings(text: string): string[][] {
  if (text.length > 12) {
    const cuts = Array.from({ length: text.length - 1 }, (_, k) => [
      text.slice(0, k + 1),
      text.slice(k + 1),
    ]);
    return [[text], ...cuts, [...text]];
  }
  const ways: string[][] = [];
  for (let bits = 0; bits < 1 << Math.max(0, text.length - 1); bits++) {
    const chunks: string[] = [];
    let from = 0;
    for (let k = 1; k <= text.length; k++) {
      if (k < text.length && (bits & (1 << (k - 1))) === 0) continue;
      chunks.push(text.slice(from, k));
      from = k;
    }
    ways.push(chunks);
  }
  return ways;
}

/**
 * Calls `drive` with each of the text's `chunkings` and returns its result. Throws, with both results, if one of them has another
 * result than the text in one piece. `drive` must start afresh each time.
 */
export async function everyChunking<T>(
  text: string,
  drive: (chunks: readonly string[]) => T | Promise<T>,
): Promise<T> {
  const result = await drive([text]);
  const expected = written(result);
  for (const chunks of chunkings(text)) {
    const found = written(await drive(chunks));
    if (found !== expected)
      throw new Error(
        `cut as ${JSON.stringify(chunks)} it comes to ${found}, in one piece to ${expected}`,
      );
  }
  return result;
}

/** A value as text, the same for equal values, and with what JSON would leave out. */
function written(value: unknown): string {
  const text = JSON.stringify(value, (_key, part) => {
    if (part instanceof Map || part instanceof Set) return [...part];
    if (part instanceof Error) return `${part.name}: ${part.message}`;
    if (typeof part === "bigint") return `${part}n`;
    return part === undefined ? "undefined" : part;
  });
  return text ?? "undefined";
}
