import type { Call, Expr, FunctionBody } from "./ast.ts";
import type { Code } from "./code.ts";
import { type MayName, mayCallSuspend, nameOf } from "./suspension.ts";

const BINARY: Readonly<Record<string, string>> = {
  "+": "add",
  "-": "sub",
  "*": "mul",
  "/": "div",
  "%": "mod",
  "^": "pow",
};

/** Which values of a call or `...` are used: the first one, all, or none. */
type Wanted = "one" | "all" | "none";

/** Writes the code of expressions. */
export class Expressions {
  readonly #code: Code;
  readonly #mayName: MayName;
  readonly #hasEnvironments: boolean;
  readonly #functionBody: (body: FunctionBody) => void;

  constructor(
    code: Code,
    mayName: MayName,
    hasEnvironments: boolean,
    functionBody: (body: FunctionBody) => void,
  ) {
    this.#code = code;
    this.#mayName = mayName;
    this.#hasEnvironments = hasEnvironments;
    this.#functionBody = functionBody;
  }

  /** Writes an array of the values; a call or `...` at the end adds all of its values. */
  list(values: readonly Expr[]): void {
    const last = values.at(-1)!;
    if (values.length === 1 && isMulti(last)) {
      this.expr(last, "all");
      return;
    }
    this.#code.emit("[");
    this.#args(values);
    this.#code.emit("]");
  }

  #args(values: readonly Expr[]): void {
    values.forEach((value, k) => {
      if (k > 0) this.#code.emit(",");
      if (k === values.length - 1 && isMulti(value)) {
        this.#code.emit("...");
        this.expr(value, "all");
      } else this.expr(value);
    });
  }

  /** Writes an expression as a JavaScript condition. */
  test(expr: Expr): void {
    if (expr.type === "paren") {
      this.test(expr.inner);
      return;
    }
    if (expr.type === "true" || expr.type === "false") {
      this.#code.emit(expr.type);
      return;
    }
    if (expr.type === "unary" && expr.op === "not") {
      this.#code.emit("!(");
      this.test(expr.operand);
      this.#code.emit(")");
      return;
    }
    if (expr.type === "binary" && (expr.op === "and" || expr.op === "or")) {
      this.#code.emit("(");
      this.test(expr.left);
      this.#code.emit(expr.op === "and" ? "&&" : "||");
      this.test(expr.right);
      this.#code.emit(")");
      return;
    }
    if (expr.type === "binary" && isComparison(expr.op)) {
      this.expr(expr);
      return;
    }
    this.#code.emit("truth(");
    this.expr(expr);
    this.#code.emit(")");
  }

  expr(expr: Expr, wanted: Wanted = "one"): void {
    switch (expr.type) {
      case "nil":
        this.#code.emit("undefined");
        return;
      case "true":
      case "false":
        this.#code.emit(expr.type);
        return;
      case "vararg":
        this.#code.emit(`${this.#code.frame.body.vararg}${wanted === "one" ? "[0]" : ""}`);
        return;
      case "number":
        this.#code.emit(numberLiteral(expr.value));
        return;
      case "string":
        this.#code.emit(JSON.stringify(expr.value));
        return;
      case "local":
        this.#code.emit(expr.local.id);
        return;
      case "global":
        this.#code.emit(`field(${this.#code.globals},${this.#code.key(expr.name)})`);
        return;
      case "index": {
        const { object, key } = expr;
        this.#code.emit(key.type === "string" ? "field(" : "index(");
        this.expr(object);
        this.#code.emit(",");
        if (key.type === "string") this.#code.emit(this.#code.key(key.value));
        else this.expr(key);
        this.#code.emit(`${quoted(describe(object))})`);
        return;
      }
      case "call":
        this.call(expr, wanted);
        return;
      case "function":
        this.#code.emit("(");
        this.#functionBody(expr.body);
        this.#code.emit(")");
        return;
      case "paren":
        this.#code.emit("(");
        this.expr(expr.inner);
        this.#code.emit(")");
        return;
      case "unary":
        this.#unary(expr);
        return;
      case "binary":
        this.#binary(expr);
        return;
      case "table":
        this.#table(expr);
        return;
    }
  }

  #unary({ op, operand, line }: Extract<Expr, { type: "unary" }>): void {
    this.#code.toLine(line);
    if (op === "not") {
      this.#code.emit("!");
      this.#code.emit("(");
      this.test(operand);
      this.#code.emit(")");
      return;
    }
    this.#code.emit(op === "-" ? "unm(" : "length(");
    this.expr(operand);
    this.#code.emit(`${quoted(describe(operand))})`);
  }

  #binary({ op, left, right }: Extract<Expr, { type: "binary" }>): void {
    switch (op) {
      case "and":
      case "or": {
        const t = this.#code.temp();
        this.#code.emit(`(truth(${t}=`);
        this.expr(left);
        this.#code.emit(op === "and" ? ")?" : `)?${t}:`);
        this.expr(right);
        this.#code.emit(op === "and" ? `:${t})` : ")");
        this.#code.release();
        return;
      }
      case "==":
      case "~=": {
        const not = op === "~=";
        if (isConstant(left) || isConstant(right)) {
          this.#code.emit("(");
          this.expr(left);
          this.#code.emit(not ? "!==" : "===");
          this.expr(right);
          this.#code.emit(")");
          return;
        }
        this.#code.emit(not ? "!eq(" : "eq(");
        this.expr(left);
        this.#code.emit(",");
        this.expr(right);
        this.#code.emit(")");
        return;
      }
      case "<":
      case "<=":
        this.#operation(op === "<" ? "lt" : "le", left, right, "");
        return;
      case ">":
      case ">=": {
        // `a > b` is `b < a` with `a` evaluated first.
        const t = this.#code.temp();
        this.#code.emit(`(${t}=`);
        this.expr(left);
        this.#code.emit(`,${op === ">" ? "lt" : "le"}(`);
        this.expr(right);
        this.#code.emit(`,${t}))`);
        this.#code.release();
        return;
      }
      case "..":
        this.#operation("concat", left, right, pair(left, right));
        return;
      default:
        this.#operation(BINARY[op]!, left, right, pair(left, right));
    }
  }

  #operation(name: string, left: Expr, right: Expr, what: string): void {
    this.#code.emit(`${name}(`);
    this.expr(left);
    this.#code.emit(",");
    this.expr(right);
    this.#code.emit(`${quoted(what)})`);
  }

  #table({ items }: Extract<Expr, { type: "table" }>): void {
    if (items.length === 0) {
      this.#code.emit("makeTable([],NONE)");
      return;
    }
    // Items without keys are evaluated before those with keys: the source's order is kept only within each of the two lists.
    const listed = items.filter((item) => item.key === undefined);
    const last = items.at(-1)!;
    const spreads = last.key === undefined && isMulti(last.value);
    if (spreads) this.#code.emit("append(");
    this.#code.emit("makeTable([");
    listed.forEach((item, k) => {
      if (spreads && k === listed.length - 1) return;
      if (k > 0) this.#code.emit(",");
      this.expr(item.value);
    });
    this.#code.emit("],");
    const keyed = items.filter((item) => item.key !== undefined);
    if (keyed.length === 0) this.#code.emit("NONE)");
    else {
      this.#code.emit("[");
      keyed.forEach((item, k) => {
        if (k > 0) this.#code.emit(",");
        this.expr(item.key!);
        this.#code.emit(",");
        this.expr(item.value);
      });
      this.#code.emit("])");
    }
    if (spreads) {
      this.#code.emit(",");
      this.expr(last.value, "all");
      this.#code.emit(")");
    }
  }

  // ---- calls

  call(call: Call, wanted: Wanted): void {
    const suspends = this.#code.frame.body.suspends && mayCallSuspend(call, this.#mayName);
    const wrap = wanted === "none" ? (suspends ? "" : "run") : wanted;
    this.#code.emit(`${wrap}(`);
    if (suspends) {
      const t = this.#code.temp();
      this.#code.emit(`isPending(${t}=`);
      this.plainCall(call);
      this.#code.emit(`)?yield* wait(${t}):${t}`);
      this.#code.release();
    } else this.plainCall(call);
    this.#code.emit(")");
  }

  /**
   * Writes the call itself, whose result may be a pending generator. For messages, the space before the arguments tells a call in
   * tail position (`levels` in error.ts).
   */
  plainCall({ callee, method, args, line }: Call, isTail = false): void {
    const open = isTail ? ") (" : ")(";
    this.#code.toLine(line);
    if (method === undefined) {
      // `getfenv` and `setfenv` need the environment of the function that calls them, which is level 1.
      const isEnvironment = this.#hasEnvironments && /^[gs]etfenv$/.test(nameOf(callee) ?? "");
      this.#code.emit(isEnvironment ? "callable(within(" : "callable(");
      this.expr(callee);
      if (isEnvironment) this.#code.emit(`,${this.#code.frame.environment})`);
      // As in LuaJIT, messages do not name a callee that a computed key has found.
      const isNamed = callee.type !== "index" || isConstant(callee.key);
      this.#code.emit(`${isNamed ? quoted(describe(callee)) : ""}${open}`);
      this.#args(args);
      this.#code.emit(")");
      return;
    }
    const self = this.#code.temp();
    this.#code.emit(`callable(method(${self}=`);
    this.expr(callee);
    this.#code.emit(`,${this.#code.key(method)}${quoted(describe(callee))}),`);
    this.#code.emit(`${JSON.stringify(`method '${method}'`)}${open}${self}`);
    if (args.length > 0) this.#code.emit(",");
    this.#args(args);
    this.#code.emit(")");
    this.#code.release();
  }
}

/** A name for messages as one more argument in the code; "": no argument. */
export const quoted = (what: string): string => (what === "" ? "" : `,${JSON.stringify(what)}`);
/** Whether an expression may have any number of values. */
export const isMulti = (expr: Expr): boolean => expr.type === "call" || expr.type === "vararg";
const isComparison = (op: string): boolean => ["==", "~=", "<", "<=", ">", ">="].includes(op);
const isConstant = ({ type }: Expr): boolean =>
  ["nil", "true", "false", "number", "string"].includes(type);

function numberLiteral(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === 0) return 1 / value < 0 ? "(-0)" : "0";
  return value < 0 ? `(${value})` : String(value);
}

/** How messages name what an expression reads; "": not at all. */
export function describe(expr: Expr): string {
  switch (expr.type) {
    case "local":
      return `${expr.isUp ? "upvalue" : "local"} '${expr.local.name}'`;
    case "global":
      return `global '${expr.name}'`;
    case "index":
      return expr.key.type === "string" ? `field '${expr.key.value}'` : "field '?'";
    case "call":
      return expr.method === undefined ? "" : "";
    default:
      return "";
  }
}

/** The names of both operands, separated by `|`; "": neither has one. */
function pair(left: Expr, right: Expr): string {
  const what = `${describe(left)}|${describe(right)}`;
  return what === "|" ? "" : what;
}
