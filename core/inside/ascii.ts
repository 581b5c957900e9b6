/** Escapes all characters beyond ASCII in a JSON text, so that each character is one byte. */
export function ascii(json: string): string {
  return json.replace(
    /[\u0080-\uffff]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
