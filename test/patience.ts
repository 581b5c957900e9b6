import { beforeEach } from "vitest";
import { onTestBegan } from "./integration/patience.ts";

beforeEach(({ task }) => onTestBegan(task.timeout));
