// Entry point of the proxy process. It starts the threads before it loads main's modules, so that both load at the same time.
import { startEarly } from "./early-threads.ts";
import { ownOptions } from "./options.ts";

// A process that was started early has no arguments yet, and so no number of workers: it starts one.
startEarly(process.argv[2] === undefined ? 1 : (await ownOptions()).concurrency);
// Waits for the `run` message from now on, and ends if the supervisor does, while main's modules are loaded.
void ownOptions();
await import("./main.ts");
