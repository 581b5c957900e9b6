import fs from "node:fs";
import { beforeAll, expect, test, vi } from "vitest";
import { bundlePreludes } from "./packages/preludes.ts";
import { type TrialPreludes, TrialProcess } from "./trial-process.ts";

let preludes: TrialPreludes;
beforeAll(async () => {
  preludes = await bundlePreludes();
});

const QUESTION = { type: "read", module: {} } as never;
const LIMIT = { ms: 10_000, message: "late" };

/** The processes of a TrialProcess that this one has started, and that have not ended. */
function trials(): string[] {
  const { pid } = process;
  const children = fs.readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ");
  return children.filter((child) => commandLine(child).includes("trial.ts"));
}

function commandLine(pid: string): string {
  try {
    return fs.readFileSync(`/proc/${pid}/cmdline`, "utf8");
  } catch {
    return "";
  }
}

test("a process that is not ready yet is ended with the proxy, and nothing is said", async () => {
  const troubles: string[] = [];
  const trial = new TrialProcess(preludes, (message) => troubles.push(message));
  const question = vi.fn(() => QUESTION);
  const asked = trial.ask(question, LIMIT);
  asked.catch(() => {});
  await vi.waitFor(() => expect(trials()).toHaveLength(1), { interval: 1, timeout: 20_000 });
  trial.dispose();
  await expect(asked).rejects.toThrow("was not tried, as the proxy ends");
  expect(trials()).toEqual([]);
  expect([question.mock.calls, troubles]).toEqual([[], []]);
});

test("a process that rests before it is ready is started anew for the question that waits", async () => {
  const troubles: string[] = [];
  const trial = new TrialProcess(preludes, (message) => troubles.push(message));
  const sessions: number[] = [];
  const asked = trial.ask((session) => {
    sessions.push(session);
    return QUESTION;
  }, LIMIT);
  asked.catch(() => {});
  await vi.waitFor(() => expect(trials()).toHaveLength(1), { interval: 1, timeout: 20_000 });
  const [first] = trials();
  trial.rest();
  await expect(asked).rejects.toThrow();
  expect(trials()).not.toContain(first);
  expect([sessions, troubles]).toEqual([[2], []]);
  trial.dispose();
});
