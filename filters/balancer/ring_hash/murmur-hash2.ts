const M = 0xc6a4a7935bd1e995n;
const SEED = 0xc70f6907n; // of libstdc++'s std::hash, which Envoy's rings of old were made with
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);
const mixed = (value: bigint): bigint => value ^ (value >> 47n);

/** MurmurHash2, 64 bits, as libstdc++ has it. A string is its bytes, one a character. */
export function murmurHash2(text: string): bigint {
  const { length } = text;
  const whole = length & ~7;
  let hash = u64(SEED ^ (BigInt(length) * M));
  for (let at = 0; at < whole; at += 8) {
    const data = u64(mixed(u64(bytesAt(text, at, 8) * M)) * M);
    hash = u64((hash ^ data) * M);
  }
  if (whole < length) hash = u64((hash ^ bytesAt(text, whole, length - whole)) * M);
  return mixed(u64(mixed(hash) * M));
}

/** Little-endian. */
function bytesAt(text: string, at: number, count: number): bigint {
  let value = 0n;
  for (let k = count - 1; k >= 0; k--) value = (value << 8n) | BigInt(text.charCodeAt(at + k));
  return value;
}
