/** Which functions of a program may suspend it: only those become generators, and only their calls are looked at for a wait. */
import type { Block, Call, Expr, Statement } from "./ast.ts";
import type { Names } from "./parser.ts";

/** What may suspend a program: nothing in a program that names none of these can. */
const SUSPENDING =
  "body bodyChunks trailers httpCall verifySignature sha256PeerCertificateIssuerDigest coroutine yield resume wrap require load loadstring dofile".split(
    " ",
  );

/** What never suspends, whoever calls it. Anything else that is called might. */
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

/** Whether a name that is called may suspend. */
export function mayDo({ used, defined }: Names): (name: string | undefined) => boolean {
  const anything = SUSPENDING.some((name) => used.has(name));
  return (name) => anything && (name === undefined || !PLAIN.has(name) || defined.has(name));
}

export type MayName = (name: string | undefined) => boolean;

export function nameOf(callee: Expr): string | undefined {
  if (callee.type === "global") return callee.name;
  if (callee.type === "local") return callee.local.name;
  return callee.type === "index" && callee.key.type === "string" ? callee.key.value : undefined;
}

/** The program defines the names of its own variables, so these never pass for something that is known. */
export function mayCallSuspend({ callee, method }: Call, may: MayName): boolean {
  return may(method ?? nameOf(callee));
}

/** `pairs(…)` and the like never wait. */
export function isPlainIteration(values: readonly Expr[], may: MayName): boolean {
  const [first] = values;
  return values.length === 1 && first?.type === "call" && !mayCallSuspend(first, may);
}

/** Whether anything that the block calls itself, not a function in it, may suspend. */
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
