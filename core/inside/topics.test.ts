import { expect, it } from "vitest";
import { Host } from "./host.ts";
import { Topics } from "./topics.ts";

/** Topics of an isolate, and what core keeps. */
function isolate() {
  const kept = new Map<string, string>();
  const host = new Host((name, text) => {
    if (name === "publish") {
      const [topic = "", value = ""] = text.split("\0");
      if (value === "") kept.delete(topic);
      else kept.set(topic, value);
    }
    if (name === "topic") return kept.get(JSON.parse(text)) ?? "";
    if (name === "topics") return JSON.stringify(Object.fromEntries(kept));
    return undefined;
  });
  return { kept, topics: new Topics(host) };
}

it("tells a family of topics: those that there are, later ones, and those taken back", () => {
  const { kept, topics } = isolate();
  kept.set("made/early", "1");
  const told: [string, unknown][] = [];
  const end = topics.subscribeAll("made/", (rest, value) => told.push([rest, value]));
  topics.publish("made/late", { x: 2 });
  topics.onPublished("made/other", "3");
  topics.publish("apart", 4);
  topics.retract("made/late");
  end();
  topics.publish("made/after", 5);
  expect(told).toEqual([
    ["early", 1],
    ["late", { x: 2 }],
    ["other", 3],
    ["late", undefined],
  ]);
});

it("keeps nothing of a topic that was taken back", () => {
  const { kept, topics } = isolate();
  const told: unknown[] = [];
  topics.publish("a", 1);
  topics.subscribe("a", (value) => told.push(value));
  topics.retract("a");
  topics.subscribe("a", (value) => told.push(["late", value]));
  expect([told, kept.size]).toEqual([[1, undefined], 0]);
});
