import type { Host, MetadataCriterion } from "@tsproxy/sdk";

/** The `envoy.lb` part of a host's metadata. */
export function lbMetadata(host: Host): Readonly<Record<string, unknown>> | undefined {
  const metadata = host.metadata as
    | { filter_metadata?: { "envoy.lb"?: Record<string, unknown> } }
    | undefined;
  return metadata?.filter_metadata?.["envoy.lb"];
}

/** A text that is the same for equal criteria, whatever the order of keys inside their values. `criteria` are sorted by key. */
export function nameOf(criteria: readonly MetadataCriterion[]): string {
  return JSON.stringify(criteria.map(({ key, value }) => [key, canonical(value)]));
}

function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== "object" || value === null) return value;
  const fields = value as Record<string, unknown>;
  return Object.keys(fields)
    .sort()
    .map((key) => [key, canonical(fields[key])]);
}

const same = (a: unknown, b: unknown): boolean =>
  JSON.stringify(canonical(a)) === JSON.stringify(canonical(b));

/** Whether the host has all of these. `listAsAny`: of a list, one value is enough. */
export function matches(
  host: Host,
  wanted: Readonly<Record<string, unknown>>,
  listAsAny: boolean,
): boolean {
  const has = lbMetadata(host) ?? {};
  return Object.entries(wanted).every(([key, value]) => {
    const own = has[key];
    if (own === undefined) return false;
    if (listAsAny && Array.isArray(own)) return own.some((one) => same(one, value));
    return same(own, value);
  });
}

const MAX_MEMBERSHIPS = 1024; // of one host by one selector: lists of several keys multiply

/** The subsets that a host belongs to by these keys (sorted): one or none, or with lists every combination of their values. */
export function memberships(
  host: Host,
  keys: readonly string[],
  listAsAny: boolean,
): MetadataCriterion[][] {
  const has = lbMetadata(host);
  if (has === undefined || keys.length === 0) return [];
  let all: MetadataCriterion[][] = [[]];
  for (const key of keys) {
    const value = has[key];
    if (value === undefined) return [];
    const values = listAsAny && Array.isArray(value) ? value : [value];
    all = all.flatMap((before) => values.map((one) => [...before, { key, value: one }]));
    all.length = Math.min(all.length, MAX_MEMBERSHIPS);
  }
  return all;
}
