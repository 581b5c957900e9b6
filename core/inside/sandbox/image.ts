/**
 * The SDK and the prelude that each sandbox starts with. This script runs once; isolates start from a snapshot of its heap
 * (core/sandbox/image.ts). So nothing here may depend on when or where it runs: such things are done in `init` of main.ts.
 */
import * as sdk from "@tsproxy/sdk";
import * as prelude from "./main.ts";

// The code that builds the isolate removes this global before the package is loaded.
Object.assign(globalThis, { "tsproxy:image": { sdk: { ...sdk }, prelude: { ...prelude } } });
