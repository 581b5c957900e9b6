import { startService } from "./service.ts";

// Both services, where the config expects them.
await Promise.all([startService(1, 8181), startService(2, 8182)]);
