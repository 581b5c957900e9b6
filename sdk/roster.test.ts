import { expect, it } from "vitest";
import { type Listed, Roster } from "./roster.ts";

const member = (name: string): Listed & { name: string } => ({ name, place: -1 });

it("holds each member once, until it is deleted, whatever the order", () => {
  const roster = new Roster<ReturnType<typeof member>>();
  const [a, b, c, d] = ["a", "b", "c", "d"].map(member) as [Member, Member, Member, Member];
  for (const each of [a, b, c, b]) roster.add(each);
  const names = () => [...roster].map(({ name }) => name).sort();
  expect(roster.size).toBe(3);
  roster.delete(a);
  roster.delete(a);
  roster.delete(d);
  expect(names()).toEqual(["b", "c"]);
  roster.add(d);
  roster.delete(d);
  roster.delete(b);
  roster.add(a);
  expect(names()).toEqual(["a", "c"]);
  roster.delete(c);
  roster.delete(a);
  expect(roster.size).toBe(0);
});

type Member = ReturnType<typeof member>;
