import type { Block, Call, Expr, FunctionBody, Local, Statement } from "./ast.ts";
import type { Names, Program } from "./parser.ts";

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

/** JavaScript of a program: an expression whose value takes the runtime and answers the main function. */
export function compile(program: Program): string {
  return new Compiler(program).text();
}

const BINARY: Readonly<Record<string, string>> = {
  "+": "add",
  "-": "sub",
  "*": "mul",
  "/": "div",
  "%": "mod",
  "^": "pow",
};

/** Whether a value is used as one, as all that a call answers, or not at all. */
type Wanted = "one" | "all" | "none";

/**
 * Writes the code from left to right. Each line of it stands on the line of the source that it came from, so that the engine's
 * stacks and debuggers tell lines of the program.
 */
class Compiler {
  readonly #program: Program;
  readonly #mayName: (name: string | undefined) => boolean;
  readonly #hasEnvironments: boolean;
  #out: string[] = [];
  #line = 1;
  #function: FunctionBody;
  /** Temporaries of the function in hand: how many are in use, and were at most. */
  #temps = 0;
  #tempsMax = 0;
  /** Name of the JavaScript variable that holds the environment. */
  #environment = "$env0";
  #environments = 0;
  /** Labels that a `goto` may leave or repeat. */
  #unique = 0;
  /** Places that ask for a key by its name. */
  #places = 0;

  constructor(program: Program) {
    this.#program = program;
    this.#function = program.main;
    const { names } = program;
    this.#mayName = mayDo(names);
    this.#hasEnvironments = names.used.has("setfenv") || names.used.has("getfenv");
  }

  text(): string {
    const { main } = this.#program;
    this.#emit(`(function(R,$env0){"use strict";const {${RUNTIME.join()}}=R,$h=hints(`);
    const places = this.#out.push("") - 1;
    this.#emit(");return ");
    this.#functionBody(main);
    this.#out[places] = String(this.#places);
    this.#emit("})");
    return this.#out.join("");
  }

  #emit(text: string): void {
    this.#out.push(text);
  }

  #toLine(line: number): void {
    if (line <= this.#line) return;
    this.#out.push("\n".repeat(line - this.#line));
    this.#line = line;
  }

  #temp(): string {
    this.#temps++;
    if (this.#temps > this.#tempsMax) this.#tempsMax = this.#temps;
    return `$t${this.#temps}`;
  }

  #release(): void {
    this.#temps--;
  }

  /** A key that the source names, and where the place that asks for it has its hint. */
  #name(name: string): string {
    return `${JSON.stringify(name)},$h,${this.#places++}`;
  }

  // ---- functions

  #functionBody(body: FunctionBody): void {
    const outer = {
      function: this.#function,
      temps: this.#temps,
      tempsMax: this.#tempsMax,
      environment: this.#environment,
      jumps: this.#jumps,
      loops: this.#loops,
    };
    this.#jumps = [];
    this.#loops = [];
    const ownEnvironment = this.#hasEnvironments && body !== this.#program.main;
    if (ownEnvironment) {
      const inner = `$env${++this.#environments}`;
      this.#emit(`withEnv(${outer.environment}.table,(${inner})=>`);
      this.#environment = inner;
    }
    this.#function = body;
    this.#temps = this.#tempsMax = 0;
    body.suspends = mayCallSuspending(body.body, this.#mayName);
    this.#toLine(body.line);
    const parameters = body.parameters.map((local) => local.id);
    if (body.vararg !== undefined) parameters.push(`...${body.vararg}`);
    this.#emit(`function${body.suspends ? "*" : ""}(${parameters.join()}){`);
    const temps = this.#out.push("") - 1;
    // `setfenv(2, …)` in what this calls finds it here. Of coroutines that run by turns the order is not known, only who is there.
    const isLevel = this.#hasEnvironments;
    if (isLevel) this.#emit(`levels.push(${this.#environment});try{`);
    this.#emit(`if(++meter.ticks>${TICKS})tick();`);
    this.#block(body.body);
    if (body.body.at(-1)?.type !== "return") this.#emit("return NONE");
    const own = this.#environment;
    this.#emit(isLevel ? `}finally{levels.splice(levels.lastIndexOf(${own}),1);}}` : "}");
    this.#out[temps] = this.#tempsMax === 0 ? "" : `let ${names("$t", this.#tempsMax)};`;
    if (ownEnvironment) this.#emit(")");
    this.#function = outer.function;
    this.#temps = outer.temps;
    this.#tempsMax = outer.tempsMax;
    this.#environment = outer.environment;
    this.#jumps = outer.jumps;
    this.#loops = outer.loops;
  }

  // ---- statements

  #block(block: Block): void {
    this.#statements(block, 0, block.length);
  }

  /**
   * Labels: what stands between a `goto` and the label behind it becomes a labelled block that the goto breaks; what follows a
   * label that is jumped back to becomes a loop that it continues.
   */
  #statements(block: Block, from: number, to: number): void {
    for (let k = from; k < to; k++) {
      const statement = block[k]!;
      if (statement.type === "label") {
        if (!jumpsTo(block.slice(k + 1, to), statement.label)) continue;
        const loop = `again$${this.#label(statement.label)}`;
        this.#emit(`${loop}:for(;;){`);
        this.#emit(`if(++meter.ticks>${TICKS})tick();`);
        this.#jumps.push({ label: statement.label, code: `continue ${loop};` });
        this.#statements(block, k + 1, to);
        this.#jumps.pop();
        this.#emit("break;}");
        return;
      }
      const end = this.#forwardLabel(block, k, to);
      if (end > k) {
        const { label } = block[end] as { label: string };
        const name = `on$${this.#label(label)}`;
        refuseJumpIntoScope(block.slice(k, to), end - k);
        this.#emit(`${name}:{`);
        this.#jumps.push({ label, code: `break ${name};` });
        this.#statements(block, k, end);
        this.#jumps.pop();
        this.#emit("}");
        k = end - 1;
        continue;
      }
      this.#statement(statement);
    }
  }

  #jumps: { readonly label: string; readonly code: string }[] = [];
  /** JavaScript's labels of the loops around. */
  #loops: string[] = [];

  #label(label: string): string {
    return `${label.replace(/\W/g, "_")}$${++this.#unique}`;
  }

  /** The last label of this block behind `at` that the statement there jumps to; -1: it jumps to none. */
  #forwardLabel(block: Block, at: number, to: number): number {
    for (let k = to - 1; k > at; k--) {
      const label = block[k]!;
      if (
        label.type === "label" &&
        !this.#jumps.some((jump) => jump.label === label.label) &&
        jumpsTo([block[at]!], label.label)
      )
        return k;
    }
    return -1;
  }

  #statement(statement: Statement): void {
    this.#toLine(statement.line);
    switch (statement.type) {
      case "local":
        this.#local(statement.locals, statement.values);
        return;
      case "assign":
        this.#assign(statement.targets, statement.values);
        return;
      case "call":
        this.#call(statement.call, "none");
        this.#emit(";");
        return;
      case "do":
        this.#emit("{");
        this.#block(statement.body);
        this.#emit("}");
        return;
      case "while":
        this.#emit(`${this.#beginLoop()}while(`);
        this.#test(statement.test);
        this.#emit(`){if(++meter.ticks>${TICKS})tick();`);
        this.#loopBody(statement.body);
        this.#emit("}");
        return;
      case "repeat":
        this.#emit(`${this.#beginLoop()}for(;;){if(++meter.ticks>${TICKS})tick();`);
        this.#block(statement.body);
        if (statement.body.at(-1)?.type !== "return") {
          this.#emit("if(");
          this.#test(statement.test);
          this.#emit(`)break ${this.#loops.at(-1)};`);
        }
        this.#loops.pop();
        this.#emit("}");
        return;
      case "if":
        this.#if(statement);
        return;
      case "for":
        this.#numericFor(statement);
        return;
      case "forIn":
        this.#genericFor(statement);
        return;
      case "localFunction":
        this.#emit(`let ${statement.local.id};${statement.local.id}=`);
        this.#functionBody(statement.body);
        this.#emit(";");
        return;
      case "return":
        this.#return(statement.values);
        return;
      case "break":
        this.#emit(`break ${this.#loops.at(-1)};`);
        return;
      case "goto":
        this.#goto(statement.label, statement.line);
        return;
    }
  }

  #beginLoop(): string {
    const label = `loop$${++this.#unique}`;
    this.#loops.push(label);
    return `${label}:`;
  }

  #loopBody(body: Block): void {
    this.#block(body);
    this.#loops.pop();
  }

  #goto(label: string, line: number): void {
    const jump = this.#jumps.findLast((found) => found.label === label);
    if (jump === undefined) throw new BadGoto(`undefined label '${label}'`, line);
    this.#emit(jump.code);
  }

  #local(locals: readonly Local[], values: readonly Expr[]): void {
    const [local] = locals;
    if (locals.length === 1 && values.length <= 1) {
      this.#emit(`let ${local!.id}`);
      if (values.length === 1) {
        this.#emit("=");
        this.#expr(values[0]!);
      }
      this.#emit(";");
      return;
    }
    const ids = locals.map((one) => one.id);
    if (values.length === 0) {
      this.#emit(`let ${ids.join()};`);
    } else if (isMulti(values.at(-1)!) && values.length <= locals.length) {
      const list = `$l${++this.#unique}`;
      this.#emit(`let ${list}=`);
      this.#list(values);
      this.#emit(`,${ids.map((id, k) => `${id}=${list}[${k}]`).join()};`);
    } else {
      // The values are all there before the first of the names is seen.
      const temps = ids.map((id, k) => `${id}${k < values.length ? "=" : ""}`);
      this.#emit("let ");
      for (let k = 0; k < ids.length; k++) {
        if (k > 0) this.#emit(",");
        this.#emit(temps[k]!);
        if (k < values.length) this.#expr(values[k]!);
      }
      this.#emit(";");
      for (const value of values.slice(ids.length)) {
        this.#expr(value);
        this.#emit(";");
      }
    }
  }

  #assign(targets: readonly Expr[], values: readonly Expr[]): void {
    if (targets.length === 1 && values.length === 1) {
      this.#store(targets[0]!, () => this.#expr(values[0]!));
      this.#emit(";");
      return;
    }
    // Objects and keys first, then all values, then the stores.
    const held = this.#temps;
    const kept = targets.map((target) => {
      if (target.type !== "index") return target;
      const object = this.#temp();
      this.#emit(`${object}=`);
      this.#expr(target.object);
      if (target.key.type === "string") {
        this.#emit(";");
        return { object, key: JSON.stringify(target.key.value), what: describe(target.object) };
      }
      const key = this.#temp();
      this.#emit(`;${key}=`);
      this.#expr(target.key);
      this.#emit(";");
      return { object, key, what: describe(target.object) };
    });
    const list = this.#temp();
    this.#emit(`${list}=`);
    this.#list(values);
    this.#emit(";");
    kept.forEach((target, k) => {
      if ("type" in target) this.#store(target, () => this.#emit(`${list}[${k}]`));
      else
        this.#emit(`setIndex(${target.object},${target.key},${list}[${k}]${quoted(target.what)})`);
      this.#emit(";");
    });
    this.#temps = held;
  }

  #store(target: Expr, value: () => void): void {
    switch (target.type) {
      case "local":
        this.#emit(`${target.local.id}=`);
        value();
        return;
      case "global":
        this.#emit(`setIndex(${this.#globals},${JSON.stringify(target.name)},`);
        value();
        this.#emit(")");
        return;
      case "index":
        this.#emit("setIndex(");
        this.#expr(target.object);
        this.#emit(",");
        this.#expr(target.key);
        this.#emit(",");
        value();
        this.#emit(`${quoted(describe(target.object))})`);
        return;
    }
  }

  get #globals(): string {
    return `${this.#environment}.table`;
  }

  #if({ arms }: Extract<Statement, { type: "if" }>): void {
    arms.forEach(({ test, body }, k) => {
      if (k > 0) this.#emit("else ");
      if (test !== undefined) {
        this.#emit("if(");
        this.#test(test);
        this.#emit(")");
      }
      this.#emit("{");
      this.#block(body);
      this.#emit("}");
    });
  }

  #numericFor({ variable, from, to, step, body }: Extract<Statement, { type: "for" }>): void {
    const n = ++this.#unique;
    const [i, end, by] = [`$i${n}`, `$n${n}`, `$s${n}`];
    this.#emit(`${this.#beginLoop()}for(let ${i}=`);
    this.#bound(from, "initial value");
    this.#emit(`,${end}=`);
    this.#bound(to, "limit");
    const fixed = step === undefined ? 1 : step.type === "number" ? step.value : undefined;
    if (fixed === undefined) {
      this.#emit(`,${by}=`);
      this.#bound(step!, "step");
      this.#emit(`;${by}>0?${i}<=${end}:${i}>=${end};${i}+=${by}){`);
    } else this.#emit(`;${i}${fixed > 0 ? "<=" : ">="}${end};${i}+=${fixed}){`);
    this.#emit(`if(++meter.ticks>${TICKS})tick();let ${variable.id}=${i};`);
    this.#loopBody(body);
    this.#emit("}");
  }

  #bound(expr: Expr, what: string): void {
    if (expr.type === "number") {
      this.#expr(expr);
      return;
    }
    this.#emit("bound(");
    this.#expr(expr);
    this.#emit(`,"${what}")`);
  }

  #genericFor({ variables, values, body }: Extract<Statement, { type: "forIn" }>): void {
    const n = ++this.#unique;
    const [f, state, control, r] = [`$f${n}`, `$s${n}`, `$c${n}`, `$r${n}`];
    this.#emit(`{let ${r}=`);
    this.#list(values);
    this.#emit(`,${f}=callable(${r}[0]),${state}=${r}[1],${control}=${r}[2];`);
    this.#emit(`${this.#beginLoop()}for(;;){if(++meter.ticks>${TICKS})tick();`);
    this.#emit(`${r}=${f}(${state},${control});`);
    const [first, ...others] = variables.map((local) => local.id);
    const mayWait = this.#function.suspends && !isPlainIteration(values, this.#mayName);
    if (mayWait) this.#emit(`if(isPending(${r}))${r}=yield* wait(${r});`);
    this.#emit(`let ${first}=${r}${others.map((id) => `,${id}`).join("")};`);
    this.#emit(`if(typeof ${r}==="object"){${r}=all(${r});${first}=${r}[0];`);
    others.forEach((id, k) => {
      this.#emit(`${id}=${r}[${k + 1}];`);
    });
    this.#emit(`}if(${first}===undefined)break ${this.#loops.at(-1)};${control}=${first};`);
    this.#loopBody(body);
    this.#emit("}}");
  }

  #return(values: readonly Expr[]): void {
    const [value] = values;
    if (value === undefined) this.#emit("return NONE;");
    else if (values.length > 1 || value.type === "vararg") {
      this.#emit("return(");
      this.#list(values);
      this.#emit(");");
    } else if (value.type === "call") {
      // Whatever it answers is the answer; who called drives it on if it waits.
      this.#emit("return(");
      this.#plainCall(value);
      this.#emit(");");
    } else {
      this.#emit("return(");
      this.#expr(value);
      this.#emit(");");
    }
  }

  // ---- expressions

  /** An array of the values, with all that the last one answers. */
  #list(values: readonly Expr[]): void {
    const last = values.at(-1)!;
    if (values.length === 1 && isMulti(last)) {
      this.#expr(last, "all");
      return;
    }
    this.#emit("[");
    this.#args(values);
    this.#emit("]");
  }

  #args(values: readonly Expr[]): void {
    values.forEach((value, k) => {
      if (k > 0) this.#emit(",");
      if (k === values.length - 1 && isMulti(value)) {
        this.#emit("...");
        this.#expr(value, "all");
      } else this.#expr(value);
    });
  }

  /** As a JavaScript condition. */
  #test(expr: Expr): void {
    if (expr.type === "paren") {
      this.#test(expr.inner);
      return;
    }
    if (expr.type === "true" || expr.type === "false") {
      this.#emit(expr.type);
      return;
    }
    if (expr.type === "unary" && expr.op === "not") {
      this.#emit("!(");
      this.#test(expr.operand);
      this.#emit(")");
      return;
    }
    if (expr.type === "binary" && (expr.op === "and" || expr.op === "or")) {
      this.#emit("(");
      this.#test(expr.left);
      this.#emit(expr.op === "and" ? "&&" : "||");
      this.#test(expr.right);
      this.#emit(")");
      return;
    }
    if (expr.type === "binary" && isComparison(expr.op)) {
      this.#expr(expr);
      return;
    }
    this.#emit("truth(");
    this.#expr(expr);
    this.#emit(")");
  }

  #expr(expr: Expr, wanted: Wanted = "one"): void {
    switch (expr.type) {
      case "nil":
        this.#emit("undefined");
        return;
      case "true":
      case "false":
        this.#emit(expr.type);
        return;
      case "vararg":
        this.#emit(`${this.#function.vararg}${wanted === "one" ? "[0]" : ""}`);
        return;
      case "number":
        this.#emit(numberLiteral(expr.value));
        return;
      case "string":
        this.#emit(JSON.stringify(expr.value));
        return;
      case "local":
        this.#emit(expr.local.id);
        return;
      case "global":
        this.#emit(`field(${this.#globals},${this.#name(expr.name)})`);
        return;
      case "index": {
        const { object, key } = expr;
        this.#emit(key.type === "string" ? "field(" : "index(");
        this.#expr(object);
        this.#emit(",");
        if (key.type === "string") this.#emit(this.#name(key.value));
        else this.#expr(key);
        this.#emit(`${quoted(describe(object))})`);
        return;
      }
      case "call":
        this.#call(expr, wanted);
        return;
      case "function":
        this.#emit("(");
        this.#functionBody(expr.body);
        this.#emit(")");
        return;
      case "paren":
        this.#emit("(");
        this.#expr(expr.inner);
        this.#emit(")");
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
    this.#toLine(line);
    if (op === "not") {
      this.#emit("!");
      this.#emit("(");
      this.#test(operand);
      this.#emit(")");
      return;
    }
    this.#emit(op === "-" ? "unm(" : "length(");
    this.#expr(operand);
    this.#emit(`${quoted(describe(operand))})`);
  }

  #binary({ op, left, right }: Extract<Expr, { type: "binary" }>): void {
    switch (op) {
      case "and":
      case "or": {
        const t = this.#temp();
        this.#emit(`(truth(${t}=`);
        this.#expr(left);
        this.#emit(op === "and" ? ")?" : `)?${t}:`);
        this.#expr(right);
        this.#emit(op === "and" ? `:${t})` : ")");
        this.#release();
        return;
      }
      case "==":
      case "~=": {
        const not = op === "~=";
        if (isConstant(left) || isConstant(right)) {
          this.#emit("(");
          this.#expr(left);
          this.#emit(not ? "!==" : "===");
          this.#expr(right);
          this.#emit(")");
          return;
        }
        this.#emit(not ? "!eq(" : "eq(");
        this.#expr(left);
        this.#emit(",");
        this.#expr(right);
        this.#emit(")");
        return;
      }
      case "<":
      case "<=":
        this.#operation(op === "<" ? "lt" : "le", left, right, "");
        return;
      case ">":
      case ">=": {
        // Evaluated in the order of the source, compared the other way round.
        const t = this.#temp();
        this.#emit(`(${t}=`);
        this.#expr(left);
        this.#emit(`,${op === ">" ? "lt" : "le"}(`);
        this.#expr(right);
        this.#emit(`,${t}))`);
        this.#release();
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
    this.#emit(`${name}(`);
    this.#expr(left);
    this.#emit(",");
    this.#expr(right);
    this.#emit(`${quoted(what)})`);
  }

  #table({ items }: Extract<Expr, { type: "table" }>): void {
    if (items.length === 0) {
      this.#emit("makeTable([],NONE)");
      return;
    }
    // Keys and values are evaluated in their order only within each of the two lists.
    const listed = items.filter((item) => item.key === undefined);
    const last = items.at(-1)!;
    const spreads = last.key === undefined && isMulti(last.value);
    if (spreads) this.#emit("append(");
    this.#emit("makeTable([");
    listed.forEach((item, k) => {
      if (spreads && k === listed.length - 1) return;
      if (k > 0) this.#emit(",");
      this.#expr(item.value);
    });
    this.#emit("],");
    const keyed = items.filter((item) => item.key !== undefined);
    if (keyed.length === 0) this.#emit("NONE)");
    else {
      this.#emit("[");
      keyed.forEach((item, k) => {
        if (k > 0) this.#emit(",");
        this.#expr(item.key!);
        this.#emit(",");
        this.#expr(item.value);
      });
      this.#emit("])");
    }
    if (spreads) {
      this.#emit(",");
      this.#expr(last.value, "all");
      this.#emit(")");
    }
  }

  // ---- calls

  #call(call: Call, wanted: Wanted): void {
    const suspends = this.#function.suspends && mayCallSuspend(call, this.#mayName);
    const wrap = wanted === "none" ? (suspends ? "" : "run") : wanted;
    this.#emit(`${wrap}(`);
    if (suspends) {
      const t = this.#temp();
      this.#emit(`isPending(${t}=`);
      this.#plainCall(call);
      this.#emit(`)?yield* wait(${t}):${t}`);
      this.#release();
    } else this.#plainCall(call);
    this.#emit(")");
  }

  #plainCall({ callee, method, args, line }: Call): void {
    this.#toLine(line);
    if (method === undefined) {
      // Level 1 of these is the function that calls them.
      const isEnvironment = this.#hasEnvironments && /^[gs]etfenv$/.test(nameOf(callee) ?? "");
      this.#emit(isEnvironment ? "callable(within(" : "callable(");
      this.#expr(callee);
      if (isEnvironment) this.#emit(`,${this.#environment})`);
      // As LuaJIT: what a computed key finds has no name when it is called.
      const isNamed = callee.type !== "index" || isConstant(callee.key);
      this.#emit(`${isNamed ? quoted(describe(callee)) : ""})(`);
      this.#args(args);
      this.#emit(")");
      return;
    }
    const self = this.#temp();
    this.#emit(`callable(method(${self}=`);
    this.#expr(callee);
    this.#emit(`,${this.#name(method)}${quoted(describe(callee))}),`);
    this.#emit(`${JSON.stringify(`method '${method}'`)})(${self}`);
    if (args.length > 0) this.#emit(",");
    this.#args(args);
    this.#emit(")");
    this.#release();
  }
}

/** A `goto` that leads nowhere. */
export class BadGoto extends Error {
  readonly line: number;

  constructor(message: string, line: number) {
    super(message);
    this.line = line;
  }
}

/**
 * Locals that are declared between a `goto` and its label (at `end`) are seen by what follows the label, unless nothing follows:
 * Lua takes a label at the end of its block for one behind the block.
 */
function refuseJumpIntoScope(block: Block, end: number): void {
  if (block.slice(end).every(({ type }) => type === "label")) return;
  const { label } = block[end] as { label: string };
  for (const statement of block.slice(1, end)) {
    const local =
      statement.type === "local"
        ? statement.locals[0]
        : statement.type === "localFunction"
          ? statement.local
          : undefined;
    if (local === undefined) continue;
    const message = `<goto ${label}> jumps into the scope of local '${local.name}'`;
    throw new BadGoto(message, block[0]!.line);
  }
}

/** What compiled code takes from the runtime by name. */
export const RUNTIME = (
  "NONE meter tick callable one all run isPending wait hints index field method setIndex append makeTable add sub mul div mod pow unm concat " +
  "length eq truth lt le bound withEnv within levels"
).split(" ");
const TICKS = 1 << 14;

const names = (prefix: string, count: number): string =>
  Array.from({ length: count }, (_, k) => `${prefix}${k + 1}`).join();
const quoted = (what: string): string => (what === "" ? "" : `,${JSON.stringify(what)}`);
const isMulti = (expr: Expr): boolean => expr.type === "call" || expr.type === "vararg";
const isComparison = (op: string): boolean => ["==", "~=", "<", "<=", ">", ">="].includes(op);
const isConstant = ({ type }: Expr): boolean =>
  ["nil", "true", "false", "number", "string"].includes(type);

function numberLiteral(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (value === 0) return 1 / value < 0 ? "(-0)" : "0";
  return value < 0 ? `(${value})` : String(value);
}

/** How messages call what an expression reads. */
function describe(expr: Expr): string {
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

function pair(left: Expr, right: Expr): string {
  const what = `${describe(left)}|${describe(right)}`;
  return what === "|" ? "" : what;
}

/** Whether a name that is called may suspend. */
function mayDo({ used, defined }: Names): (name: string | undefined) => boolean {
  const anything = SUSPENDING.some((name) => used.has(name));
  return (name) => anything && (name === undefined || !PLAIN.has(name) || defined.has(name));
}

type MayName = (name: string | undefined) => boolean;

function nameOf(callee: Expr): string | undefined {
  if (callee.type === "global") return callee.name;
  if (callee.type === "local") return callee.local.name;
  return callee.type === "index" && callee.key.type === "string" ? callee.key.value : undefined;
}

/** The program defines the names of its own variables, so these never pass for something that is known. */
function mayCallSuspend({ callee, method }: Call, may: MayName): boolean {
  return may(method ?? nameOf(callee));
}

/** `pairs(…)` and the like never wait. */
function isPlainIteration(values: readonly Expr[], may: MayName): boolean {
  const [first] = values;
  return values.length === 1 && first?.type === "call" && !mayCallSuspend(first, may);
}

/** Whether anything that the block calls itself, not a function in it, may suspend. */
function mayCallSuspending(block: Block, may: MayName): boolean {
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

/** Whether a `goto` in these statements, or in blocks within, names the label. */
function jumpsTo(block: Block, label: string): boolean {
  return block.some((statement) => {
    switch (statement.type) {
      case "goto":
        return statement.label === label;
      case "do":
      case "while":
      case "repeat":
      case "for":
      case "forIn":
        return jumpsTo(statement.body, label);
      case "if":
        return statement.arms.some((arm) => jumpsTo(arm.body, label));
      default:
        return false;
    }
  });
}
