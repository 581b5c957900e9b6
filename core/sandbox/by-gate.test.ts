/** The suites of sandboxed filters once more, with streams that enter by gates within the crossing that made their records. */
import { FakeWorker } from "./fake-worker.ts";

FakeWorker.gated = true;
await import("./placements.test.ts");
await import("./facts.test.ts");
await import("./calls.test.ts");
await import("./hostile.test.ts");
await import("./containment.test.ts");
await import("./accounts.test.ts");
await import("./manifest.test.ts");
