// The proxy's process begins here. Its threads are started before the modules of main are loaded, so that both happen at once.
import { startEarly } from "./early-threads.ts";
import { ownOptions } from "./options.ts";

// A process that was started early does not know yet how many workers it shall have: one at least.
startEarly(process.argv[2] === undefined ? 1 : (await ownOptions()).concurrency);
void ownOptions();
await import("./main.ts");
