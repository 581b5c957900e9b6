/** Tells which functions of a program may suspend it: only those become generators and check what their calls return. */
import type { Block, Call, Expr, Statement } from "./ast.ts";
import type { Names } from "./parser.ts";

/** Names of what may suspend a program; one that contains none of them never suspends. */
const SUSPENDING =
  "body bodyChunks trailers httpCall verifySignature sha256PeerCertificateIssuerDigest coroutine yield resume wrap require load loadstring dofile".split(
    " ",
  );

/** Names of library and host functions that never suspend; any other callee may. */
const PLAIN = new Set(
  (
    "assert collectgarbage error gcinfo getfenv getmetatable ipairs newproxy next pairs print rawequal rawget rawlen rawset select " +
    "setfenv setmetatable tonumber tostring type unpack " +
    "byte char find format gmatch gsub len lower match rep reverse sub upper " +
    "concat foreachi getn insert maxn pack remove sort " +
    "abs acos asin atan atan2 ceil cos cosh deg exp floor fmod frexp ldexp log log10 max min modf pow rad random randomseed sin sinh " +
    "sqrt tan tanh clock date difftime time arshift band bnot bor bswap bxor lshift rol ror rshift tobit tohex " +
    "headers add get getAtIndex getNumValues replace set remove setHttp1ReasonPhrase metadata streamInfo connection ssl protocol " +
    "dynamicMetadata filterState length getBytes setBytes respond logTrace logDebug logInfo logWarn logErr logCritical base64Escape " +
    "base64Decode timestamp timestampString clearRouteCache filterContext importPublicKey"
  ).split(" "),
);

/** Returns a test of whether a call by that name may suspend the program; undefined: the callee has no name. */
export function mayDo({ used, defined }: Names): (name: string | undefined) => boolean {
  const anything = SUSPENDING.some((name) => used.has(name));
  return (name) => anything && (name === undefined || !PLAIN.has(name) || defined.has(name));
}

export type MayName = (name: string | undefined) => boolean;

/** The name by which a callee is called; undefined: it has none. */
export function nameOf(callee: Expr): string | undefined {
  if (callee.type === "global") return callee.name;
  if (callee.type === "local") return callee.local.name;
  return callee.type === "index" && callee.key.type === "string" ? callee.key.value : undefined;
}

/** Whether a call may suspend. Names that the program defines itself never pass for library functions. */
export function mayCallSuspend({ callee, method }: Call, may: MayName): boolean {
  return may(method ?? nameOf(callee));
}

/** Whether a `for … in` iterates over one call, such as `pairs(…)`, that never suspends. */
export function isPlainIteration(values: readonly Expr[], may: MayName): boolean {
  const [first] = values;
  return values.length === 1 && first?.type === "call" && !mayCallSuspend(first, may);
}

/** Whether any call in the block may suspend; functions that it defines do not count. */
export function mayCallSuspending(block: Block, may: MayName): boolean {
  const inExprs = (exprs: readonly (Expr | undefined)[]): boolean => exprs.some(inExpr);
  const inExpr = (expr: Expr | undefined): boolean => {
    switch (expr?.type) {
      case "call":
        return mayCallSuspend(expr, may) || inExpr(expr.callee) || inExprs(expr.args);
      case "index":
        return inExpr(expr.object) || inExpr(expr.key);
      case "binary":
        return inExpr(expr.left) || inExpr(expr.right);
      case "unary":
        return inExpr(expr.operand);
      case "paren":
        return inExpr(expr.inner);
      case "table":
        return expr.items.some((item) => inExpr(item.key) || inExpr(item.value));
      default:
        return false;
    }
  };
  const inBlock = (body: Block): boolean => body.some(inStatement);
  const inStatement = (statement: Statement): boolean => {
    switch (statement.type) {
      case "local":
      case "return":
        return inExprs(statement.values);
      case "assign":
        return inExprs(statement.targets) || inExprs(statement.values);
      case "call":
        return inExpr(statement.call);
      case "do":
        return inBlock(statement.body);
      case "while":
      case "repeat":
        return inExpr(statement.test) || inBlock(statement.body);
      case "if":
        return statement.arms.some((arm) => inExpr(arm.test) || inBlock(arm.body));
      case "for":
        return inExprs([statement.from, statement.to, statement.step]) || inBlock(statement.body);
      case "forIn":
        return !isPlainIteration(statement.values, may) && may(undefined)
          ? true
          : inExprs(statement.values) || inBlock(statement.body);
      default:
        return false;
    }
  };
  return inBlock(block);
}
