import { expect, it } from "vitest";
import { LuaError, LuaState, Stopped } from "./index.ts";

/** The same numbers for the same seed. */
function dice(seed: number): (sides: number) => number {
  let state = seed >>> 0;
  return (sides) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return (state >>> 8) % sides;
  };
}

const WORDS =
  `and break do else elseif end false for function goto if in local nil not or repeat return then true until while
  a b c x self _G pairs ipairs pcall error string coroutine setmetatable 1 2 0x1F 1e3 .5 "s" 'q' [[long]] -- --[[ ]] ; , . : :: .. ... =
  == ~= < <= > >= + - * / % ^ # ( ) { } [ ]`.split(/\s+/);
const PIECES =
  String.raw`a b . %a %d %s %w %W %z %b() %f[a] [abc] [^a] [a-z] [%w_] [ ( ) () (a) %1 %2 * + - ? ^ $ % ] %% \0`.split(
    " ",
  );

/** A text that is no program must be refused, one that is one must end: neither may throw anything else. */
function attempt(source: string): "ran" | "refused" | "failed" {
  const state = new LuaState({ runMs: 20 });
  let main: ReturnType<LuaState["load"]>;
  try {
    main = state.load(source, "=fuzz");
  } catch (error) {
    if (!(error instanceof LuaError)) throw error;
    return "refused";
  }
  try {
    state.call(main);
    return "ran";
  } catch (error) {
    // What no program has caught comes out as it was thrown.
    if (error instanceof LuaError || error instanceof Stopped || error instanceof RangeError)
      return "failed";
    throw error;
  }
}

it("the compiler refuses or compiles whatever it is given, and what it compiles is JavaScript", () => {
  const seen = { ran: 0, refused: 0, failed: 0 };
  for (let seed = 1; seed <= 3000; seed++) {
    const roll = dice(seed);
    const size = roll(25) + 1;
    const source = Array.from({ length: size }, () => WORDS[roll(WORDS.length)]).join(
      roll(10) === 0 ? "\n" : " ",
    );
    seen[attempt(source)]++;
  }
  expect(seen.refused).toBeGreaterThan(2000);
  expect(seen.ran + seen.failed).toBeGreaterThan(10);
});

/** Programs that are right by their grammar: every statement and expression meets every other. */
function program(roll: (sides: number) => number): string {
  const names = ["a", "b", "c", "t"];
  const name = () => names[roll(names.length)]!;
  const expr = (depth: number): string => {
    if (depth <= 0) return [name(), "1", "nil", "true", "'s'", "...", "{}"][roll(7)]!;
    const e = () => expr(depth - 1);
    return [
      () => `(${e()} ${["+", "..", "==", "<", "and", "or", "~="][roll(7)]} ${e()})`,
      () => `${["-", "not ", "#"][roll(3)]}(${e()})`,
      () => `{ ${e()}, x = ${e()}, [1] = ${e()}, ${e()} }`,
      () => `(function(a, ...) ${block(depth - 1)} return ${e()} end)(${e()})`,
      () => `pcall(${name()}, ${e()})`,
      () => `(${e()}).x`,
      () => `select('#', ${e()}, ...)`,
    ][roll(7)]!();
  };
  const block = (depth: number): string => {
    const b = () => (depth <= 0 ? "" : block(depth - 1));
    const e = () => expr(Math.min(2, depth));
    const label = `l${roll(1e6)}`;
    return Array.from({ length: roll(3) + 1 }, () =>
      [
        () => `local ${name()}, ${name()} = ${e()}, ${e()}`,
        () => `${name()}, t.x = ${e()}`,
        () => `if ${e()} then ${b()} elseif ${e()} then ${b()} else ${b()} end`,
        () => `for ${name()} = 1, 3 do ${b()} if ${e()} then break end end`,
        () => `for ${name()}, ${name()} in pairs({ ${e()} }) do ${b()} end`,
        () => `while ${e()} do ${b()} break end`,
        () => `repeat local ${name()} = ${e()} ${b()} until true`,
        () => `do for i = 1, 2 do if i == 1 then goto ${label} end ${b()} ::${label}:: end end`,
        () => `local function ${name()}(...) ${b()} return ${e()}, ... end`,
        () => `coroutine.wrap(function(...) ${b()} coroutine.yield(${e()}) end)(${e()})`,
        () => `setmetatable(t, { __index = function(_, ...) ${b()} return ${e()} end })`,
      ][roll(11)]!(),
    ).join(" ");
  };
  return `local a, b, c, t = 1, "2", nil, {} ${block(3)}`;
}

it("programs that are right by the grammar compile, run and end", () => {
  const seen = { ran: 0, refused: 0, failed: 0 };
  const refused: string[] = [];
  for (let seed = 1; seed <= 600; seed++) {
    const source = program(dice(seed));
    const outcome = attempt(source);
    seen[outcome]++;
    if (outcome === "refused") refused.push(source);
  }
  expect(refused).toEqual([]);
  expect(seen.ran).toBeGreaterThan(20);
});

it("patterns match, fail or are refused, within their time", () => {
  const state = new LuaState({ runMs: 50, print: () => {} });
  const main = state.load(
    `local text, pattern, by = ...
     return { pcall(string.find, text, pattern) }, { pcall(string.gsub, text, pattern, by) }, { pcall(function()
       for a in string.gmatch(text, pattern) do end end) }`,
    "=fuzz",
  );
  for (let seed = 1; seed <= 4000; seed++) {
    const roll = dice(seed);
    const make = (pieces: readonly string[], size: number): string =>
      Array.from({ length: roll(size) }, () => pieces[roll(pieces.length)]).join("");
    const text = make(["a", "b", "(", ")", "1", " ", "%", "\0"], 30);
    try {
      state.call(main, text, make(PIECES, 8), make(["%0", "%1", "x", "%%", "%"], 3));
    } catch (error) {
      if (!(error instanceof Stopped)) throw error;
    }
  }
});
