/** The part of `debug` that tells where a program is. A sandbox has no functions that look into others or change them. */
import { library, optionalInteger } from "./arguments.ts";
import { stackLevels } from "./error.ts";
import { Coroutine, type LuaFunction, metatableOf } from "./runtime.ts";
import { LuaTable } from "./table.ts";

export function debugLibrary(): LuaTable {
  return library({
    traceback,
    getinfo,
    getmetatable: (...args) => metatableOf(args[0]),
  });
}

/** `traceback([thread,] [message [, level]])`: a message that is neither text nor nil is returned as it is. */
const traceback: LuaFunction = (...args) => {
  const rest = args[0] instanceof Coroutine ? args.slice(1) : args;
  const [message] = rest;
  if (message !== undefined && typeof message !== "string" && typeof message !== "number")
    return message;
  const level = optionalInteger(rest, 2, "traceback", 1);
  const lines = args[0] instanceof Coroutine ? [] : stackLevels().slice(Math.max(0, level));
  const text = lines.map(({ place, name }) => {
    const called = name === "" ? "" : ` '${name}'`;
    return `\n\t${place === "" ? "[C]" : place}: in function${called}`;
  });
  const before = message === undefined ? "" : `${message}\n`;
  return `${before}stack traceback:${text.join("")}`;
};

/** `getinfo(level | function)`: tells the place only. */
const getinfo: LuaFunction = (...args) => {
  const rest = args[0] instanceof Coroutine ? args.slice(1) : args;
  const [what] = rest;
  const info = new LuaTable();
  if (typeof what === "function") {
    const isHost = what.name.startsWith("lua_");
    info.set("func", what);
    info.set("what", isHost ? "C" : "Lua");
    info.set("source", isHost ? "=[C]" : "=?");
    info.set("short_src", isHost ? "[C]" : "?");
    info.set("currentline", -1);
    return info;
  }
  const level = stackLevels()[optionalInteger(rest, 1, "getinfo", 1)];
  if (level === undefined) return undefined;
  const { place } = level;
  const colon = place.lastIndexOf(":");
  const source = colon < 0 ? "[C]" : place.slice(0, colon);
  info.set("what", colon < 0 ? "C" : "Lua");
  info.set("namewhat", "");
  info.set("source", `=${source}`);
  info.set("short_src", source);
  info.set("currentline", colon < 0 ? -1 : Number(place.slice(colon + 1)));
  return info;
};
