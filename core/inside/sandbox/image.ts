/**
 * What a sandbox holds before its package comes. It runs as a script, once: other isolates begin with a snapshot of what it has made
 * (core/sandbox/image.ts). So nothing here may depend on when or where it runs; what does is in `init`.
 */
import * as sdk from "@tsproxy/sdk";
import * as prelude from "./main.ts";

// Whoever builds the isolate takes this away before a package can see it.
Object.assign(globalThis, { "tsproxy:image": { sdk: { ...sdk }, prelude: { ...prelude } } });
