// Entry point of the proxy process. It starts the threads before it loads main's modules, so that both load at the same time.
import { startEarly } from "./early-threads.ts";
import { ownOptions } from "./options.ts";

// A process that was started early has no options yet: a Spare is told how many workers it will have, another one starts one.
const [, , options, workers = 1] = process.argv;
startEarly(options ? (await ownOptions()).concurrency : Number(workers));
// Waits for the `run` message from now on, and ends if the supervisor does, while main's modules are loaded.
void ownOptions();
await import("./main.ts");
