import { expect, it } from "vitest";
import { DomainTable } from "./domain-table.ts";

/** Envoy's words for it: exact, the longest suffix, the longest prefix, any. */
function expected(domains: readonly string[], name: string): string | undefined {
  const longest = (fits: (domain: string) => boolean) =>
    domains.filter((d) => d !== "*" && fits(d)).sort((a, b) => b.length - a.length)[0];
  return (
    domains.find((domain) => domain === name) ??
    longest((d) => d.startsWith("*") && name.length >= d.length && name.endsWith(d.slice(1))) ??
    longest((d) => d.endsWith("*") && name.length >= d.length && name.startsWith(d.slice(0, -1))) ??
    domains.find((domain) => domain === "*")
  );
}

it("chooses as the rule says, whatever the domains", () => {
  // The same run every time.
  let seed = 7;
  const random = (n: number) => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (seed >> 8) % n;
  };
  const word = (most: number) =>
    Array.from({ length: 1 + random(most) }, () => "ab."[random(3)]).join("");
  let wildcards = 0;
  for (let round = 0; round < 300; round++) {
    const forms = [(w: string) => w, (w: string) => `*${w}`, (w: string) => `${w}*`];
    const domains = [
      ...new Set(Array.from({ length: random(12) }, () => forms[random(3)]!(word(5)))),
      ...(random(2) === 0 ? ["*"] : []),
    ];
    const table = new DomainTable<string>();
    for (const domain of domains) table.add(domain, domain, "at", "t");
    for (let k = 0; k < 30; k++) {
      const name = k === 0 ? "" : word(7);
      const found = table.find(name);
      expect([domains, name, found]).toEqual([domains, name, expected(domains, name)]);
      if (found !== undefined && found !== name && found !== "*") wildcards++;
    }
  }
  expect(wildcards).toBeGreaterThan(1_000);
});
