import type { Reporter, TestCase } from "vitest/node";

/** Says at the end which tests passed only when they were tried again, and what they failed of first: such a test, or what it tests, is to be mended. */
export class SecondTries implements Reporter {
  readonly #found: TestCase[] = [];
  onTestCaseResult(test: TestCase): void {
    if (test.diagnostic()?.flaky) this.#found.push(test);
  }
  onTestRunEnd(): void {
    for (const test of this.#found) {
      const why = test
        .result()
        .errors?.map(({ message }) => message.split("\n", 1)[0])
        .join("; ");
      console.warn(
        `passed at the second try only: ${test.module.relativeModuleId} > ${test.fullName}: ${why}`,
      );
    }
  }
}
