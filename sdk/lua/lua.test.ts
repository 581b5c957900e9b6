import { describe, expect, it } from "vitest";
import { HostWait, LuaError, LuaState, Stopped, wait } from "./index.ts";

/** What a program prints, a line each. */
/** A busy machine may take its time; what is to be stopped is, whenever. */
const RUN_MS = 20_000;

function run(
  source: string,
  modules: Readonly<Record<string, string>> = {},
  runMs = RUN_MS,
): string[] {
  const lines: string[] = [];
  const state = new LuaState({
    runMs,
    print: (text) => lines.push(text),
    module: (name) =>
      modules[name] === undefined ? undefined : { text: modules[name], file: `./${name}.lua` },
  });
  state.call(state.load(source, source));
  return lines;
}

/** What it fails with. */
function failure(source: string, runMs = RUN_MS): unknown {
  try {
    run(source, {}, runMs);
  } catch (error) {
    return error instanceof LuaError ? error.value : error;
  }
  return undefined;
}

/** Values of expressions, as `tostring` has them. */
const values = (...expressions: string[]): string[] =>
  run(expressions.map((text) => `print(${text})`).join("\n"));

describe("values", () => {
  it("are written as LuaJIT writes them", () => {
    expect(
      values("1, 10/2, 1.5, 2^53, 1e15, 1e100, -0.0", "1/0, -1/0, 0/0", "0.1 + 0.2", "2^-1074"),
    ).toEqual([
      "1\t5\t1.5\t9.007199254741e+15\t1e+15\t1e+100\t-0",
      "inf\t-inf\tnan",
      "0.3",
      "4.9406564584125e-324",
    ]);
    expect(values("nil, true, 'a'", "type(print), type({}), type(nil)")).toEqual([
      "nil\ttrue\ta",
      "function\ttable\tnil",
    ]);
    expect(run("print(tostring({}):match('^table: 0x%x+$') ~= nil)")).toEqual(["true"]);
  });

  it("are texts of bytes, with escapes and long brackets", () => {
    expect(
      values(String.raw`#"\65\x42\z
       \n\0"`),
    ).toEqual(["4"]);
    expect(values("[==[\na]]b]==]", "#[[\n\nx]]")).toEqual(["a]]b", "2"]);
  });

  it("become numbers and texts where an operator needs them", () => {
    expect(values("'10' + 1", "10 .. 20", "'0x10' * 1", "' 5 ' - 0")).toEqual([
      "11",
      "1020",
      "16",
      "5",
    ]);
    expect(
      values("tonumber('z', 36), tonumber('8', 8), tonumber('1e1'), tonumber('0x.8p1')"),
    ).toEqual(["35\tnil\t10\t1"]);
    expect(values("5 % -3, -5 % 3, 5.5 % 2, 2^0.5 * 0 + 2^10")).toEqual(["-1\t1\t1.5\t1024"]);
  });
});

describe("a program", () => {
  it("has closures, varargs, several results and methods", () => {
    const source = `
      local function counter() local n = 0; return function() n = n + 1; return n end end
      local a, b = counter(), counter()
      a(); a()
      print(a(), b())
      local function count(...) return select('#', ...), ... end
      print(count(nil, nil), (count(1, 2)))
      local t = { n = 1 }
      function t:add(x) self.n = self.n + x; return self end
      print(t:add(2):add(3).n)
      local list = { count(7, 8), count(7, 8) }
      print(#list, unpack(list))
      local fs = {}
      for i = 1, 3 do fs[i] = function() i = i + 10; return i end end
      print(fs[1](), fs[1](), fs[2]())`;
    expect(run(source)).toEqual(["3\t1", "2\t2", "6", "4\t2\t2\t7\t8", "11\t21\t12"]);
  });

  it("has variables of any name, that hide others from where they stand", () => {
    const text = `
      local x = 1
      local x = x + 1
      local function inner() print(x, t) local x = x * 10 return x end
      local t = inner()
      local meter, field, undefined, class, let, R, eval = 1, 2, 3, 4, 5, 6, 7
      print(x, t, meter + field + undefined + class + let + R + eval)
      local function twin(a, a) return a end
      print(twin(1, 2))
      for i = 1, 2 do local i = i * 2 for i = i, i do print(i) end end
      do local y = "one" print(y) end
      do local y = y print(y) end`;
    expect(run(text)).toEqual(["2\tnil", "2\t20\t28", "2", "2", "4", "one", "nil"]);
  });

  it("evaluates all values before it assigns any", () => {
    expect(
      run(
        "local a, b, t = 1, 2, {}; local i = 1; i, t[i] = i + 1, 20; a, b = b, a; print(i, t[1], t[2], a, b)",
      ),
    ).toEqual(["2\t20\tnil\t2\t1"]);
  });

  it("has loops that break, go on by goto and count down", () => {
    const source = `
      for i = 3, 1, -1 do if i == 1 then break end print(i) end
      for i = 1, 3 do for j = 1, 3 do if j == 2 then goto next end print(i * j) ::next:: end if i == 1 then break end end
      local i = 1
      ::top:: if i < 4 then i = i * 2; goto top end
      print(i)
      repeat local done = i > 6; i = i + 1 until done
      print(i)
      while true do while true do break end i = i + 1 if i > 10 then break end end
      print(i)`;
    expect(run(source)).toEqual(["3", "2", "1", "3", "4", "8", "11"]);
  });

  it("has metatables: indexing, arithmetic, comparison, calls, lengths, iteration", () => {
    const source = `
      local V = {}
      V.__index = function(t, k) return k .. "?" end
      V.__add = function(a, b) return "sum" end
      V.__concat = function(a, b) return "joined" end
      V.__eq = function(a, b) return true end
      V.__lt = function(a, b) return true end
      V.__call = function(self, x) return x * 2 end
      V.__len = function() return 42 end
      V.__tostring = function() return "a V" end
      V.__newindex = function(t, k, v) rawset(t, k, v + 1) end
      V.__pairs = function(t) return function(_, k) if not k then return 1, 2 end end, t, nil end
      local a, b = setmetatable({}, V), setmetatable({}, V)
      print(a.x, a + 1, "s" .. a, a == b, a < b, a <= b, a(21), #a, tostring(a))
      a.y = 1
      print(rawget(a, "y"))
      for k, v in pairs(a) do print(k, v) end
      print(getmetatable(setmetatable({}, { __metatable = "locked" })))`;
    expect(run(source)).toEqual([
      "x?\tsum\tjoined\ttrue\ttrue\tfalse\t42\t42\ta V",
      "2",
      "1\t2",
      "locked",
    ]);
  });

  it("has environments by level, of functions and of what is loaded", () => {
    const source = `
      local print, setfenv, getfenv, loadstring, _G = print, setfenv, getfenv, loadstring, _G
      local function change() return setfenv(2, { print = print, x = "inner" }) end
      local function asks() local me = change(); print(x, me == asks) return getfenv(1) end
      x = "outer"
      print(asks() == getfenv(asks), getfenv(0) == _G)
      setfenv(0, { y = 1 })
      print(getfenv(loadstring("")).y)
      setfenv(0, _G)`;
    expect(run(source)).toEqual(["inner\ttrue", "true\ttrue", "1"]);
  });

  it("cannot jump into the scope of a local, but over it to the end of its block", () => {
    expect(failure("do goto on; local x; ::on:: print(x) end")).toBe(
      `[string "do goto on; local x; ::on:: print(x) end"]:1: <goto on> jumps into the scope of local 'x'`,
    );
    expect(
      run("for i = 1, 2 do if i == 1 then goto on end local x = i; print(x) ::on:: end"),
    ).toEqual(["2"]);
  });

  it("tells where it is", () => {
    const source = `
      local function f() return select(2, xpcall(function() error("no") end, debug.traceback)) end
      local text = f()
      print((text:gsub("%[string .-%]", "S"):gsub("\\n", "|"):gsub("%[C%].*", "")))
      local here = debug.getinfo(1)
      print(here.currentline, here.what, debug.getinfo(print).what, debug.getinfo(99))`;
    const [first, second] = run(source);
    expect(first).toMatch(/^S:2: no\|stack traceback:\|\t/);
    expect(second).toBe("5\tLua\tC\tnil");
  });

  it("may clear what it traverses, and finds everything else", () => {
    const source = `
      local t = {}
      for i = 1, 100 do t[i] = i; t["k" .. i] = i end
      local sum = 0
      for k, v in pairs(t) do sum = sum + v; t[k] = nil end
      print(sum, next(t))
      t[3] = 3; t[2] = 2; t[1] = 1
      print(#t, t[3])
      t[#t] = nil
      print(#t)`;
    expect(run(source)).toEqual(["10100\tnil", "3\t3", "2"]);
  });

  it("has environments", () => {
    const source = `
      x = "global"
      local function f() return x end
      setfenv(f, { x = "own" })
      print(f(), x, getfenv(f).x, getfenv(1) == _G)
      local function g() setfenv(1, { y = 5 }); return y end
      print(g())
      print(setfenv(loadstring("return z"), { z = 7 })())`;
    expect(run(source)).toEqual(["own\tglobal\town\ttrue", "5", "7"]);
  });

  it("loads modules once", () => {
    const source = `local m = require("lib.m"); print(m.n, require("lib.m") == m, package.loaded["lib.m"] == m)`;
    const modules = { "lib.m": "loads = (loads or 0) + 1; return { n = loads }" };
    expect(run(source, modules)).toEqual(["1\ttrue\ttrue"]);
    expect(failure('require("lib.none")')).toMatch(/module 'lib.none' not found:/);
  });
});

describe("errors", () => {
  const chunk = (source: string) => `[string "${source}"]`;

  it("name the chunk, the line, and the variable", () => {
    const said = (source: string, message: string) =>
      expect(failure(source)).toBe(`${chunk(source)}:1: ${message}`);
    said("local x; x.y = 1", "attempt to index local 'x' (a nil value)");
    said("local x = {}; x.y.z = 1", "attempt to index field 'y' (a nil value)");
    said("foo()", "attempt to call global 'foo' (a nil value)");
    said("local s = 'a'; s:nope()", "attempt to call method 'nope' (a nil value)");
    said("return 1 + {}", "attempt to perform arithmetic on a table value");
    said("return 1 < 'x'", "attempt to compare number with string");
    said("return {} < {}", "attempt to compare two table values");
    said("return 'a' .. {}", "attempt to concatenate a table value");
    said("return #nil", "attempt to get length of a nil value");
    said("local t = {} t[nil] = 1", "table index is nil");
    said("('x'):rep({})", "bad argument #1 to 'rep' (number expected, got table)");
    said("string.rep()", "bad argument #1 to 'rep' (string expected, got no value)");
    said("error('boom')", "boom");
  });

  it("count and name arguments as the call is written", () => {
    const said = (source: string, message: string) =>
      expect(failure(source)).toBe(`${chunk(source)}:1: ${message}`);
    said("local f = string.rep; f('x')", "bad argument #2 to 'f' (number expected, got no value)");
    said("('x').rep('x')", "bad argument #2 to 'rep' (number expected, got no value)");
    said("string['r' .. 'ep']('x')", "bad argument #2 to '?' (number expected, got no value)");
    said(
      "for k in next, nil do end",
      "bad argument #1 to '(for generator)' (table expected, got nil)",
    );
  });

  it("leave out functions that have called another in tail position", () => {
    const said = (body: string) => run(`print(pcall(function() ${body} end))`)[0];
    expect(said("return ('x'):rep()")).toBe(
      "false\tbad argument #2 to '?' (number expected, got no value)",
    );
    expect(said("local function f() return ('x'):rep() end f()")).toMatch(
      /:1: bad argument #2 to 'f' \(number expected, got no value\)$/,
    );
    expect(said("return error('x')")).toBe("false\tx");
    expect(said("return (error('x'))")).toMatch(/:1: x$/);
    expect(said("return nothing()")).toMatch(/:1: attempt to call global 'nothing'/);
  });

  it("count lines as the source does, whatever spans them", () => {
    const source =
      "local a = {\n  1,\n  2,\n}\nlocal function f(\n  x\n)\n  return x .. nil\nend\nf(\n  a\n)";
    expect(failure(source)).toMatch(/:8: attempt to concatenate/);
    expect(failure("local function f() error('x', 2) end\n\nf()")).toMatch(/:3: x$/);
    expect(failure("\n\nlocal s = [[\na\nb]]\nerror(s)")).toMatch(/:6: a\nb$/);
  });

  it("are caught by pcall and xpcall, with any value", () => {
    const source = `
      print(pcall(error, "plain"))
      print(pcall(error, { 1 }) == false, select(2, pcall(error, 5)), select(2, pcall(error)))
      print(xpcall(function() return 1, 2 end, print))
      print(xpcall(function() error("x", 0) end, function(e) return "handled " .. e end))
      print(xpcall(error, function() error("no") end))
      print(pcall(function() local function f() return f() + 1 end f() end))`;
    expect(run(source)).toEqual([
      "false\tplain",
      "true\t5\tnil",
      "true\t1\t2",
      "false\thandled x",
      "false\terror in error handling",
      expect.stringMatching(/^false\t.*:7: stack overflow$/),
    ]);
  });

  it("of the syntax say where and near what", () => {
    const said = (source: string, message: string) => {
      const [, text] = [0, run(`print(loadstring(${JSON.stringify(source)}))`)[0]!.split("\t")[1]!];
      expect(text.replace(/^\[string ".*?"\]/, "")).toBe(message);
    };
    said("x = ", ":1: unexpected symbol near '<eof>'");
    said("this is", ":1: '=' expected near 'is'");
    said("for i = 1 do end", ":1: ',' expected near 'do'");
    said("if x then", ":1: 'end' expected near '<eof>'");
    said("return 'a", ":1: unfinished string near '<eof>'");
    said("x = 3y", ":1: malformed number near '3y'");
    said("goto nowhere", ":1: undefined label 'nowhere'");
    said("break", ":1: no loop to break near '<eof>'");
    expect(failure("if x then\n\n")).toMatch(
      /:3: 'end' expected \(to close 'if' at line 1\) near '<eof>'/,
    );
    expect(failure(`x = ${"(".repeat(1000)}`)).toMatch(/too many syntax levels/);
    expect(run(`print(load("\\27Lua"))`)[0]).toMatch(/wrong mode/);
  });
});

describe("coroutines", () => {
  it("pass values both ways, through pcall, loops and calls", () => {
    const source = `
      local co = coroutine.create(function(a, b)
        print("start", a, b)
        local c = coroutine.yield(a + b)
        local ok, d = pcall(function() for i = 1, 2 do c = c + coroutine.yield(i) end error("inner", 0) end)
        return c, d
      end)
      print(coroutine.resume(co, 1, 2))
      print(coroutine.resume(co, 10))
      print(coroutine.resume(co, 100))
      print(coroutine.status(co), coroutine.resume(co, 1000))
      print(coroutine.status(co), coroutine.resume(co))
      local gen = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end)
      local sum = 0
      for i in gen do sum = sum + i end
      print(sum)
      print(pcall(coroutine.wrap(function() error({}) end)))`;
    const lines = run(source);
    expect(lines.slice(0, 7)).toEqual([
      "start\t1\t2",
      "true\t3",
      "true\t1",
      "true\t2",
      "suspended\ttrue\t1110\tinner",
      "dead\tfalse\tcannot resume dead coroutine",
      "6",
    ]);
    expect(lines[7]).toMatch(/^false\ttable: /);
  });

  it("let the host suspend a program anywhere, within a coroutine of its own too", () => {
    const state = new LuaState();
    const pause = new HostWait();
    state.globals.set("body", function* (): Generator<unknown, unknown, unknown> {
      return yield pause;
    });
    const main = state.load(
      `local function deep(n) if n == 0 then return body() end return (deep(n - 1)) end
       local inside = coroutine.wrap(function() return body() end)
       return deep(5) .. inside()`,
      "=test",
    );
    state.enter();
    const generator = wait(main());
    expect(generator.next().value).toBe(pause);
    expect(generator.next("a").value).toBe(pause);
    expect(generator.next("b")).toEqual({ done: true, value: "ab" });
  });
});

describe("the library", () => {
  it("matches patterns", () => {
    expect(
      values(
        "('key = value'):match('^(%w+)%s*=%s*(%w+)$')",
        "('hello world'):find('o w'), ('a.b'):find('.', 1, true), ('abc'):find('b()')",
        "('THE (quick) fox'):find('%((%a+)%)')",
        "('f(a(b)c)d'):match('%b()')",
        "('THE (quick) fox'):gsub('%f[%a]%a+', string.lower)",
        "('hello'):gsub('', '-')",
        "('abc'):gsub('%w', '%0%0'), ('abc'):gsub('(a)(b)', '%2%1')",
        "('$name is $age'):gsub('%$(%w+)', { name = 'ada', age = 36 })",
        "('x'):rep(3, ','), ('abc'):sub(-2), ('abc'):byte(1, -1)",
        "('aXb'):find('%u'), ('a\\0b'):len(), ('äö'):len()",
      ),
    ).toEqual([
      "key\tvalue",
      "5\t2\t2\t2\t3",
      "5\t11\tquick",
      "(a(b)c)",
      "the (quick) fox\t3",
      "-h-e-l-l-o-\t6",
      "aabbcc\tbac\t1",
      "ada is 36\t2",
      "x,x,x\tbc\t97\t98\t99",
      "2\t3\t2",
    ]);
    expect(run("for k, v in ('a=1, b=2'):gmatch('(%w+)=(%w+)') do print(k, v) end")).toEqual([
      "a\t1",
      "b\t2",
    ]);
    expect(failure("return ('a'):find('[a')")).toMatch(/malformed pattern \(missing '\]'\)/);
    expect(failure("return ('a'):find('%')")).toMatch(/malformed pattern \(ends with '%'\)/);
    expect(failure("return ('a'):gsub('a', '%2')")).toMatch(/invalid capture index/);
  });

  it("formats", () => {
    expect(
      values(
        "('%5d|%-5s|%05.1f|%x|%X|%#x|%o'):format(42, 'ab', 3.14159, 255, 255, 255, 8)",
        "('%q'):format('a\\n\"b\\\\')",
        "('%g %g %g %e %.3g'):format(1e20, 0.1, 100000, 12345.678, 2/3)",
        "('%s %s %s %%'):format(nil, true, 1.5)",
        "('%+d % d %c%c'):format(1, 2, 72, 105)",
        "('%.2s|%10.3s|'):format('abc', 'abcdef')",
        "('%d'):format(3.7), ('%i'):format('10'), ('%u'):format(7)",
      ),
    ).toEqual([
      "   42|ab   |003.1|ff|FF|0xff|10",
      '"a\\\n\\"b\\\\"',
      "1e+20 0.1 100000 1.234568e+04 0.667",
      "nil true 1.5 %",
      "+1  2 Hi",
      "ab|       abc|",
      "3\t10\t7",
    ]);
  });

  it("has tables, mathematics, bits and time", () => {
    const source = `
      local t = { 3, 1, 2 }
      table.sort(t); print(table.concat(t, ","))
      table.sort(t, function(a, b) return a > b end); print(table.concat(t, ","))
      table.insert(t, 1, 9); table.insert(t, 7); print(table.concat(t, ","), table.remove(t, 1), table.remove(t), #t)
      print(table.getn(t), table.maxn({ [10] = 1 }), table.pack(1, nil).n, select("#", unpack({}, 1, 3)))
      print(math.floor(-1.5), math.max(1, 3, 2), math.fmod(-5, 3), math.modf(3.7))
      print(math.huge, math.pi > 3, math.random(1, 1), math.ldexp(0.5, 3), math.frexp(8))
      print(bit.band(0xff, 0x0f), bit.bor(1, 2), bit.bxor(3, 1), bit.lshift(1, 31), bit.rshift(-1, 28), bit.tohex(255, 4))
      print(os.date("!%Y-%m-%d %H:%M:%S", 0), os.date("!*t", 86400).day, type(os.time()), os.getenv("HOME"))
      print(io, debug.getregistry, dofile, loadfile, os.execute, os.exit, pcall(string.dump, print))`;
    expect(run(source)).toEqual([
      "1,2,3",
      "3,2,1",
      "9,3,2,1,7\t9\t7\t3",
      "3\t10\t2\t3",
      "-2\t3\t-2\t3\t0.7",
      "inf\ttrue\t1\t4\t0.5\t4",
      "15\t3\t2\t-2147483648\t15\t00ff",
      "1970-01-01 00:00:00\t2\tnumber\tnil",
      "nil\tnil\tnil\tnil\tnil\tnil\tfalse\tunable to dump given function",
    ]);
  });
});

it("moves values of tables that overlap, and tells what it runs on", () => {
  const source = `
    print(table.concat(table.move({ 1, 2, 3 }, 1, 3, 2), ","), table.concat(table.move({ 1, 2, 3 }, 2, 3, 1), ","))
    print(table.concat(table.move({ 1, 2 }, 1, 2, 3, { 8, 9 }), ","), type(jit.version), jit.status())`;
  expect(run(source)).toEqual(["1,1,2,3\t2,3,3", "8,9,1,2\tstring\ttrue"]);
});

describe("a hostile program", () => {
  const stopped = (source: string) => expect(failure(source, 100), source).toBeInstanceOf(Stopped);

  it("is stopped when it takes too long, whatever it catches", () => {
    stopped("while true do end");
    stopped("repeat until false");
    stopped("for i = 1, math.huge do end");
    stopped("::a:: goto a");
    stopped("local function f(n) if n > 0 then f(n - 1) f(n - 1) end end f(100)");
    stopped("while true do pcall(function() while true do end end) end");
    stopped(
      "local t = setmetatable({}, { __index = function() while true do end end }) return t.x",
    );
    stopped("for x in function() return 1 end do end");
    stopped(
      "local co = coroutine.wrap(function() while true do coroutine.yield() end end) while true do co() end",
    );
    stopped("local t = {} for i = 1, 1e9 do t[i] = i end");
    stopped("local s = ('a'):rep(5000) while true do s:find(('.-'):rep(10) .. 'b') end");
    stopped(
      "local t = {} for i = 1, 1e5 do t[i] = i end while true do table.sort(t, function() return true end) end",
    );
  });

  it("cannot make what would not fit", () => {
    expect(failure("local s = 'x' while true do s = s .. s end")).toMatch(/not enough memory/);
    expect(failure("return ('x'):rep(1e10)")).toMatch(/too large/);
    expect(failure("return unpack({}, 1, 1e8)")).toMatch(/too many results/);
    expect(failure("return ('x'):rep(1e6):gsub('.', ('y'):rep(1000))")).toMatch(/too large/);
    expect(failure("return table.concat(setmetatable({}, {}), 'x', 1, 1e9)")).toMatch(
      /invalid value/,
    );
    expect(
      failure(
        "local t = {} t = setmetatable(t, { __index = function(t, k) return t[k] end }) return t.x",
      ),
    ).toBeDefined();
    expect(failure("return ('a'):rep(300):find(('a?'):rep(300) .. ('a'):rep(300))")).toMatch(
      /too complex/,
    );
    expect(failure("local a = {} setmetatable(a, { __index = a }) return a.x")).toMatch(/loop/);
  });

  it("sees nothing of the engine around it", () => {
    expect(values("({}).constructor, ({}).__proto__, (''):len(), _G.globalThis, _G.eval")).toEqual([
      "nil\tnil\t0\tnil\tnil",
    ]);
    expect(failure("return (print).call")).toMatch(/attempt to index/);
    expect(
      run(
        "local __proto__ = 1; local constructor = { __proto__ = 2 }; print(__proto__, constructor.__proto__)",
      ),
    ).toEqual(["1\t2"]);
  });
});
