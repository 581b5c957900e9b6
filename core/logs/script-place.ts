import { scriptPlace as placeOfFrame, type ScriptSource } from "@tsproxy/sdk";
import type { RuntimeConfig } from "../protocol.ts";

export interface ScriptPlace {
  readonly file: string;
  readonly line: number;
  readonly column: number;
}

/** The scripts of a config, found once: a config may be large, and faults many. */
const known = new WeakMap<RuntimeConfig, readonly ScriptSource[]>();

/**
 * The place in the user's file of the topmost frame of `stack`, if that lies in a script of the config. Undefined: it lies in
 * code of a package.
 */
export function scriptPlace(
  stack: string,
  config: RuntimeConfig | undefined,
): ScriptPlace | undefined {
  if (config === undefined) return undefined;
  const frame = /\bat [^\n]+:\d+:\d+/.exec(stack)?.[0];
  if (frame === undefined) return undefined;
  let scripts = known.get(config);
  if (scripts === undefined) known.set(config, (scripts = scriptsIn(config)));
  for (const source of scripts) {
    const place = placeOfFrame(source, frame);
    if (place === undefined) continue;
    // On line 1 of a file, the column counts what opens the function that is put around the script.
    const isCounted = source.runs !== undefined || place.line > 1;
    return { file: source.file, line: place.line, column: isCounted ? place.column : 1 };
  }
  return undefined;
}

function scriptsIn(config: RuntimeConfig): ScriptSource[] {
  const scripts: ScriptSource[] = [];
  JSON.stringify(config, (_key, value) => {
    if (typeof value?.code === "string" && typeof value.indent === "number") scripts.push(value);
    return value;
  });
  return scripts;
}
