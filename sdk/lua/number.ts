/** Converts numbers to text and back, as C's printf and strtod do. */

const DECIMAL = /^[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?$/;
const HEX = /^([+-]?)0[xX]([0-9a-fA-F]*)(?:\.([0-9a-fA-F]*))?(?:[pP]([+-]?\d+))?$/;

/** Parses a number literal; undefined: it is not one. Spaces are not allowed. */
export function parseNumber(text: string): number | undefined {
  if (DECIMAL.test(text)) return Number(text);
  const hex = HEX.exec(text);
  if (hex !== null) {
    const [, sign, whole = "", fraction = "", exponent = "0"] = hex;
    if (whole === "" && fraction === "") return undefined;
    let value = 0;
    for (const digit of whole + fraction) value = value * 16 + Number.parseInt(digit, 16);
    value *= 2 ** (Number(exponent) - 4 * fraction.length);
    return sign === "-" ? -value : value;
  }
  const word = /^([+-]?)(inf(?:inity)?|nan)$/i.exec(text);
  if (word === null) return undefined;
  const value = word[2]!.toLowerCase() === "nan" ? Number.NaN : Number.POSITIVE_INFINITY;
  return word[1] === "-" ? -value : value;
}

/** `tonumber` of a text, which may have spaces around the number; undefined: it is not one. */
export function numberOf(text: string): number | undefined {
  const trimmed = text.replace(/^[ \t\n\v\f\r]+|[ \t\n\v\f\r]+$/g, "");
  return parseNumber(trimmed);
}

/** `tostring` of a number: C's `%.14g`. */
export function numberText(value: number): string {
  if (Number.isInteger(value) && value < 1e14 && value > -1e14) {
    return value === 0 && 1 / value < 0 ? "-0" : `${value}`;
  }
  return formatG(value, 14, false);
}

const word = (value: number): string => (Number.isNaN(value) ? "nan" : value < 0 ? "-inf" : "inf");

/** `%e` without flags and width. */
export function formatE(value: number, precision: number): string {
  if (!Number.isFinite(value)) return word(value);
  return exponentOf(signed(value, (size) => size.toExponential(precision)));
}

/** `%f` without flags and width. */
export function formatF(value: number, precision: number): string {
  if (!Number.isFinite(value)) return word(value);
  return signed(value, (size) => fixed(size, precision));
}

/** `%g` without width; `alternate`: the flag `#`, which keeps trailing zeros. */
export function formatG(value: number, precision: number, alternate: boolean): string {
  if (!Number.isFinite(value)) return word(value);
  const digits = Math.max(1, precision);
  return signed(value, (size) => {
    const scientific = size.toExponential(digits - 1);
    const exponent = Number(scientific.slice(scientific.indexOf("e") + 1));
    if (exponent < -4 || exponent >= digits) {
      const [mantissa, power] = scientific.split("e") as [string, string];
      return exponentOf(`${alternate ? mantissa : stripZeros(mantissa)}e${power}`);
    }
    const text = fixed(size, digits - 1 - exponent);
    return alternate ? text : stripZeros(text);
  });
}

/** `%a` without flags and width. */
export function formatA(value: number): string {
  if (!Number.isFinite(value)) return word(value);
  return signed(value, (size) => {
    if (size === 0) return "0x0p+0";
    let exponent = Math.floor(Math.log2(size));
    let mantissa = size / 2 ** exponent;
    if (mantissa >= 2) {
      mantissa /= 2;
      exponent++;
    }
    let text = "0x1";
    let rest = mantissa - 1;
    if (rest > 0) text += ".";
    while (rest > 0) {
      rest *= 16;
      const digit = Math.floor(rest);
      text += digit.toString(16);
      rest -= digit;
    }
    return `${text}p${exponent < 0 ? "" : "+"}${exponent}`;
  });
}

function signed(value: number, format: (size: number) => string): string {
  const isNegative = value < 0 || (value === 0 && 1 / value < 0);
  return isNegative ? `-${format(-value)}` : format(value);
}

/** `toFixed` for any size: from 1e21 on it would print an exponent, but those numbers are whole and print exactly as BigInt. */
function fixed(size: number, precision: number): string {
  if (size < 1e21) return size.toFixed(precision);
  const whole = BigInt(size).toString();
  return precision === 0 ? whole : `${whole}.${"0".repeat(precision)}`;
}

const stripZeros = (text: string): string =>
  text.includes(".") ? text.replace(/\.?0+$/, "") : text;

/** C writes at least two digits of an exponent. */
const exponentOf = (text: string): string => text.replace(/e([+-])(\d)$/, "e$10$2");
