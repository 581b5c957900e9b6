import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { type LuaError, LuaState, Stopped } from "./index.ts";

/**
 * The official tests of Lua 5.1 (lua.org/tests), where `LUA_TESTS` names their folder: they are not part of this project. Each runs
 * with an `assert` that notes lines and goes on. `fails`: lines that do not hold, which are those that do not hold in Envoy's LuaJIT
 * either, but for the ones that ask `debug`; `ends`: what a sandbox has not, where the file stops.
 */
const FILES: Readonly<
  Record<string, { readonly fails?: readonly number[]; readonly ends?: RegExp }>
> = {
  "api.lua": {},
  "calls.lua": { fails: [241] }, // debug.getinfo().source
  "checktable.lua": {},
  "closure.lua": { fails: [161], ends: /'linedefined'/ }, // coroutine.running() as in 5.2
  "code.lua": {},
  "events.lua": { fails: [262], ends: /field 'setmetatable'/ }, // __lt of two metatables as in 5.2
  "literals.lua": {},
  "locals.lua": {},
  "math.lua": { ends: /global 'io'/ },
  "nextvar.lua": {},
  "pm.lua": { fails: [235] }, // %f as in 5.2
  "sort.lua": {},
  "strings.lua": {},
  "vararg.lua": { fails: [6], ends: /global 'arg'/ }, // no `arg`, as in LuaJIT
};
/**
 * Not here: all, attrib, files, main, verybig (files), db (debug), big (texts of 64 MiB), gc (32 MiB of tables), constructs (16,384
 * chunks), errors (stacks that take minutes).
 */

const folder = process.env.LUA_TESTS ?? "";
const NOTING = `local hard, noted = error, {}
  function assert(v, ...)
    if not v then
      for level = 3, 7 do
        local place = tostring(select(2, pcall(function() hard("", level) end))):match("^@?[%w_]+%.lua:(%d+):")
        if place and place ~= "1" then
          if not noted[place] then noted[place] = true print("FAILS " .. place) end
          break
        end
      end
    end
    return v, ...
  end
  math.mod = math.mod or math.fmod `.replace(/\n\s*/g, " ");

describe.skipIf(!existsSync(folder))("the official tests", () => {
  for (const [file, { fails = [], ends }] of Object.entries(FILES)) {
    it.skipIf(!existsSync(path.join(folder, file)))(file, () => {
      const failed: number[] = [];
      const print = (text: string): void => {
        const line = /^FAILS (\d+)/.exec(text)?.[1];
        if (line !== undefined) failed.push(Number(line));
      };
      const state = new LuaState({ runMs: 50_000, print });
      const text = readFileSync(path.join(folder, file), "latin1").replace(/^#/, "--");
      let end = "";
      try {
        state.call(state.load(`${NOTING}${text}`, `@${file}`));
      } catch (error) {
        end = error instanceof Stopped ? error.reason : String((error as LuaError).value);
      }
      expect(failed).toEqual(fails);
      if (ends === undefined) expect(end).toBe("");
      else expect(end).toMatch(ends);
    });
  }
});
