import type { Block, Expr, FunctionBody, Local, Statement } from "./ast.ts";
import { Code, RUNTIME } from "./code.ts";
import { describe, Expressions, isMulti, quoted } from "./expressions.ts";
import { BadGoto, jumpsTo, refuseJumpIntoScope } from "./jumps.ts";
import type { Program } from "./parser.ts";
import { isPlainIteration, type MayName, mayCallSuspending, mayDo } from "./suspension.ts";

/** Compiles to a JavaScript expression: a function of runtime and environment that returns the main function. Throws BadGoto. */
export function compile(program: Program): string {
  return new Compiler(program).text();
}

/** Writes the code of functions and their statements. */
class Compiler {
  readonly #program: Program;
  readonly #mayName: MayName;
  readonly #hasEnvironments: boolean;
  readonly #code: Code;
  readonly #write: Expressions;
  #environments = 0;
  /** Number of the last generated name, to keep such names unique. */
  #unique = 0;
  /** Labels that a `goto` can reach from here, each with the code of the jump. */
  #jumps: { readonly label: string; readonly code: string }[] = [];
  /** JavaScript labels of the enclosing loops, innermost last. */
  #loops: string[] = [];

  constructor(program: Program) {
    this.#program = program;
    const { main, names } = program;
    this.#mayName = mayDo(names);
    this.#hasEnvironments = names.used.has("setfenv") || names.used.has("getfenv");
    this.#code = new Code({ body: main, environment: "$env0", temps: 0, tempsMax: 0 });
    this.#write = new Expressions(this.#code, this.#mayName, this.#hasEnvironments, (body) =>
      this.#functionBody(body),
    );
  }

  text(): string {
    const code = this.#code;
    code.emit(`(function(R,$env0){"use strict";const {${RUNTIME.join()}}=R,$h=hints(`);
    const fillPlaces = code.gap();
    code.emit(");return ");
    this.#functionBody(this.#program.main);
    fillPlaces(String(code.places));
    code.emit("})");
    return code.text();
  }

  // ---- functions

  #functionBody(body: FunctionBody): void {
    const code = this.#code;
    const outer = { frame: code.frame, jumps: this.#jumps, loops: this.#loops };
    this.#jumps = [];
    this.#loops = [];
    let { environment } = outer.frame;
    const ownEnvironment = this.#hasEnvironments && body !== this.#program.main;
    if (ownEnvironment) {
      const inner = `$env${++this.#environments}`;
      code.emit(`withEnv(${environment}.table,(${inner})=>`);
      environment = inner;
    }
    const frame = { body, environment, temps: 0, tempsMax: 0 };
    code.frame = frame;
    body.suspends = mayCallSuspending(body.body, this.#mayName);
    code.toLine(body.line);
    const parameters = body.parameters.map((local) => local.id);
    if (body.vararg !== undefined) parameters.push(`...${body.vararg}`);
    code.emit(`function${body.suspends ? "*" : ""}(${parameters.join()}){`);
    const fillTemps = code.gap();
    // Callees find the environment by level, for `setfenv(2, …)`. No `pop()`: coroutines may end in any order.
    const isLevel = this.#hasEnvironments;
    if (isLevel) code.emit(`levels.push(${environment});try{`);
    code.emit(`if(++meter.ticks>${TICKS})tick();`);
    this.#block(body.body);
    if (body.body.at(-1)?.type !== "return") code.emit("return NONE");
    code.emit(isLevel ? `}finally{levels.splice(levels.lastIndexOf(${environment}),1);}}` : "}");
    fillTemps(frame.tempsMax === 0 ? "" : `let ${names("$t", frame.tempsMax)};`);
    if (ownEnvironment) code.emit(")");
    code.frame = outer.frame;
    this.#jumps = outer.jumps;
    this.#loops = outer.loops;
  }

  // ---- statements

  #block(block: Block): void {
    this.#statements(block, 0, block.length);
  }

  /**
   * Labels: the statements between a `goto` and a later label become a labelled block, which the goto breaks; the statements
   * after a label that is jumped back to become a loop, which the goto continues.
   */
  #statements(block: Block, from: number, to: number): void {
    for (let k = from; k < to; k++) {
      const statement = block[k]!;
      if (statement.type === "label") {
        if (!jumpsTo(block.slice(k + 1, to), statement.label)) continue;
        const loop = `again$${this.#label(statement.label)}`;
        this.#code.emit(`${loop}:for(;;){`);
        this.#code.emit(`if(++meter.ticks>${TICKS})tick();`);
        this.#jumps.push({ label: statement.label, code: `continue ${loop};` });
        this.#statements(block, k + 1, to);
        this.#jumps.pop();
        this.#code.emit("break;}");
        return;
      }
      const end = this.#forwardLabel(block, k, to);
      if (end > k) {
        const { label } = block[end] as { label: string };
        const name = `on$${this.#label(label)}`;
        refuseJumpIntoScope(block.slice(k, to), end - k);
        this.#code.emit(`${name}:{`);
        this.#jumps.push({ label, code: `break ${name};` });
        this.#statements(block, k, end);
        this.#jumps.pop();
        this.#code.emit("}");
        k = end - 1;
        continue;
      }
      this.#statement(statement);
    }
  }

  #label(label: string): string {
    return `${label.replace(/\W/g, "_")}$${++this.#unique}`;
  }

  /** Index of the last label after `at` in this block to which the statement at `at` jumps; -1: it jumps to none. */
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
    this.#code.toLine(statement.line);
    switch (statement.type) {
      case "local":
        this.#local(statement.locals, statement.values);
        return;
      case "assign":
        this.#assign(statement.targets, statement.values);
        return;
      case "call":
        this.#write.call(statement.call, "none");
        this.#code.emit(";");
        return;
      case "do":
        this.#code.emit("{");
        this.#block(statement.body);
        this.#code.emit("}");
        return;
      case "while":
        this.#code.emit(`${this.#beginLoop()}while(`);
        this.#write.test(statement.test);
        this.#code.emit(`){if(++meter.ticks>${TICKS})tick();`);
        this.#loopBody(statement.body);
        this.#code.emit("}");
        return;
      case "repeat":
        this.#code.emit(`${this.#beginLoop()}for(;;){if(++meter.ticks>${TICKS})tick();`);
        this.#block(statement.body);
        if (statement.body.at(-1)?.type !== "return") {
          this.#code.emit("if(");
          this.#write.test(statement.test);
          this.#code.emit(`)break ${this.#loops.at(-1)};`);
        }
        this.#loops.pop();
        this.#code.emit("}");
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
        this.#code.emit(`let ${statement.local.id};${statement.local.id}=`);
        this.#functionBody(statement.body);
        this.#code.emit(";");
        return;
      case "return":
        this.#return(statement.values);
        return;
      case "break":
        this.#code.emit(`break ${this.#loops.at(-1)};`);
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
    this.#code.emit(jump.code);
  }

  #local(locals: readonly Local[], values: readonly Expr[]): void {
    const [local] = locals;
    if (locals.length === 1 && values.length <= 1) {
      this.#code.emit(`let ${local!.id}`);
      if (values.length === 1) {
        this.#code.emit("=");
        this.#write.expr(values[0]!);
      }
      this.#code.emit(";");
      return;
    }
    const ids = locals.map((one) => one.id);
    if (values.length === 0) {
      this.#code.emit(`let ${ids.join()};`);
    } else if (isMulti(values.at(-1)!) && values.length <= locals.length) {
      const list = `$l${++this.#unique}`;
      this.#code.emit(`let ${list}=`);
      this.#write.list(values);
      this.#code.emit(`,${ids.map((id, k) => `${id}=${list}[${k}]`).join()};`);
    } else {
      // No value sees a new variable: the parser gave these ids of their own, and declared them after it had read the values.
      const temps = ids.map((id, k) => `${id}${k < values.length ? "=" : ""}`);
      this.#code.emit("let ");
      for (let k = 0; k < ids.length; k++) {
        if (k > 0) this.#code.emit(",");
        this.#code.emit(temps[k]!);
        if (k < values.length) this.#write.expr(values[k]!);
      }
      this.#code.emit(";");
      for (const value of values.slice(ids.length)) {
        this.#write.expr(value);
        this.#code.emit(";");
      }
    }
  }

  #assign(targets: readonly Expr[], values: readonly Expr[]): void {
    if (targets.length === 1 && values.length === 1) {
      this.#store(targets[0]!, () => this.#write.expr(values[0]!));
      this.#code.emit(";");
      return;
    }
    // Evaluates objects and keys first, then all values, and then stores.
    const held = this.#code.frame.temps;
    const kept = targets.map((target) => {
      if (target.type !== "index") return target;
      const object = this.#code.temp();
      this.#code.emit(`${object}=`);
      this.#write.expr(target.object);
      if (target.key.type === "string") {
        this.#code.emit(";");
        return { object, key: JSON.stringify(target.key.value), what: describe(target.object) };
      }
      const key = this.#code.temp();
      this.#code.emit(`;${key}=`);
      this.#write.expr(target.key);
      this.#code.emit(";");
      return { object, key, what: describe(target.object) };
    });
    const list = this.#code.temp();
    this.#code.emit(`${list}=`);
    this.#write.list(values);
    this.#code.emit(";");
    kept.forEach((target, k) => {
      if ("type" in target) this.#store(target, () => this.#code.emit(`${list}[${k}]`));
      else
        this.#code.emit(
          `setIndex(${target.object},${target.key},${list}[${k}]${quoted(target.what)})`,
        );
      this.#code.emit(";");
    });
    this.#code.frame.temps = held;
  }

  #store(target: Expr, value: () => void): void {
    switch (target.type) {
      case "local":
        this.#code.emit(`${target.local.id}=`);
        value();
        return;
      case "global":
        this.#code.emit(`setIndex(${this.#code.globals},${JSON.stringify(target.name)},`);
        value();
        this.#code.emit(")");
        return;
      case "index":
        this.#code.emit("setIndex(");
        this.#write.expr(target.object);
        this.#code.emit(",");
        this.#write.expr(target.key);
        this.#code.emit(",");
        value();
        this.#code.emit(`${quoted(describe(target.object))})`);
        return;
    }
  }

  #if({ arms }: Extract<Statement, { type: "if" }>): void {
    arms.forEach(({ test, body }, k) => {
      if (k > 0) this.#code.emit("else ");
      if (test !== undefined) {
        this.#code.emit("if(");
        this.#write.test(test);
        this.#code.emit(")");
      }
      this.#code.emit("{");
      this.#block(body);
      this.#code.emit("}");
    });
  }

  #numericFor({ variable, from, to, step, body }: Extract<Statement, { type: "for" }>): void {
    const n = ++this.#unique;
    const [i, end, by] = [`$i${n}`, `$n${n}`, `$s${n}`];
    this.#code.emit(`${this.#beginLoop()}for(let ${i}=`);
    this.#bound(from, "initial value");
    this.#code.emit(`,${end}=`);
    this.#bound(to, "limit");
    const fixed = step === undefined ? 1 : step.type === "number" ? step.value : undefined;
    if (fixed === undefined) {
      this.#code.emit(`,${by}=`);
      this.#bound(step!, "step");
      this.#code.emit(`;${by}>0?${i}<=${end}:${i}>=${end};${i}+=${by}){`);
    } else this.#code.emit(`;${i}${fixed > 0 ? "<=" : ">="}${end};${i}+=${fixed}){`);
    this.#code.emit(`if(++meter.ticks>${TICKS})tick();let ${variable.id}=${i};`);
    this.#loopBody(body);
    this.#code.emit("}");
  }

  #bound(expr: Expr, what: string): void {
    if (expr.type === "number") {
      this.#write.expr(expr);
      return;
    }
    this.#code.emit("bound(");
    this.#write.expr(expr);
    this.#code.emit(`,"${what}")`);
  }

  #genericFor({ variables, values, body }: Extract<Statement, { type: "forIn" }>): void {
    const n = ++this.#unique;
    const [f, state, control, r] = [`$f${n}`, `$s${n}`, `$c${n}`, `$r${n}`];
    this.#code.emit(`{let ${r}=`);
    this.#write.list(values);
    this.#code.emit(`,${f}=callable(${r}[0]),${state}=${r}[1],${control}=${r}[2];`);
    this.#code.emit(`${this.#beginLoop()}for(;;){if(++meter.ticks>${TICKS})tick();`);
    this.#code.emit(`${r}=${f}(${state},${control});`);
    const [first, ...others] = variables.map((local) => local.id);
    const mayWait = this.#code.frame.body.suspends && !isPlainIteration(values, this.#mayName);
    if (mayWait) this.#code.emit(`if(isPending(${r}))${r}=yield* wait(${r});`);
    this.#code.emit(`let ${first}=${r}${others.map((id) => `,${id}`).join("")};`);
    this.#code.emit(`if(typeof ${r}==="object"){${r}=all(${r});${first}=${r}[0];`);
    others.forEach((id, k) => {
      this.#code.emit(`${id}=${r}[${k + 1}];`);
    });
    this.#code.emit(`}if(${first}===undefined)break ${this.#loops.at(-1)};${control}=${first};`);
    this.#loopBody(body);
    this.#code.emit("}}");
  }

  #return(values: readonly Expr[]): void {
    const [value] = values;
    if (value === undefined) this.#code.emit("return NONE;");
    else if (values.length > 1 || value.type === "vararg") {
      this.#code.emit("return(");
      this.#write.list(values);
      this.#code.emit(");");
    } else if (value.type === "call") {
      // The callee's result is returned as it is; if it is a pending generator, this function's caller drives it.
      this.#code.emit("return(");
      this.#write.plainCall(value, true);
      this.#code.emit(");");
    } else {
      this.#code.emit("return(");
      this.#write.expr(value);
      this.#code.emit(");");
    }
  }
}

/** As in meter.ts: `tick` is called once in this many turns of loops and calls. */
const TICKS = 1 << 14;

const names = (prefix: string, count: number): string =>
  Array.from({ length: count }, (_, k) => `${prefix}${k + 1}`).join();
