import type { Block, Call, Expr, FunctionBody, Item, Local, Statement } from "./ast.ts";
import { TAKEN } from "./code.ts";
import { Lexer, type Token } from "./lexer.ts";

/** As in LuaJIT, deeper nesting is refused before it can overflow the stack. */
const DEPTH_MAX = 180;
const LOCALS_MAX = 200;

/** Binding strength to the left and right: `..` and `^` are right-associative. */
const BINARY: Readonly<Record<string, readonly [left: number, right: number]>> = {
  or: [1, 1],
  and: [2, 2],
  "<": [3, 3],
  ">": [3, 3],
  "<=": [3, 3],
  ">=": [3, 3],
  "~=": [3, 3],
  "==": [3, 3],
  "..": [5, 4],
  "+": [6, 6],
  "-": [6, 6],
  "*": [7, 7],
  "/": [7, 7],
  "%": [7, 7],
  "^": [10, 9],
};
const UNARY_STRENGTH = 8;

/** Names in a program, from which the compiler tells which calls may suspend it. */
export interface Names {
  /** Every name, field and string literal in the program. */
  readonly used: ReadonlySet<string>;
  /** Names of the program's own variables, functions and fields. */
  readonly defined: ReadonlySet<string>;
}

export interface Program {
  readonly main: FunctionBody;
  readonly names: Names;
}

interface Scope {
  readonly locals: Map<string, Local>;
  readonly labels: Set<string>;
}

/** Parses a chunk; throws SyntaxError51. `chunk`: the name that messages begin with. */
export function parse(source: string, chunk: string): Program {
  return new Parser(source, chunk).program();
}

class Parser {
  readonly #lexer: Lexer;
  #token: Token;
  #ahead: Token | undefined = undefined;
  #depth = 0;
  #scopes: Scope[] = [];
  #functions: FunctionBody[] = [];
  #localCounts: number[] = [];
  #loops: number[] = [];
  #ids = 0;
  readonly #used = new Set<string>();
  readonly #defined = new Set<string>();

  constructor(source: string, chunk: string) {
    this.#lexer = new Lexer(source, chunk);
    this.#token = this.#lexer.next();
  }

  program(): Program {
    const main = this.#begin(0);
    main.vararg = "$va0";
    main.body = this.#block();
    if (this.#token.kind !== "eof") this.#expected("<eof>");
    main.endLine = this.#token.line;
    return { main, names: { used: this.#used, defined: this.#defined } };
  }

  // ---- tokens

  #next(): Token {
    const token = this.#token;
    this.#token = this.#ahead ?? this.#lexer.next();
    this.#ahead = undefined;
    if (token.kind === "name" || token.kind === "string") this.#used.add(token.text);
    return token;
  }

  #is(symbol: string): boolean {
    return this.#token.kind === "symbol" && this.#token.text === symbol;
  }

  #take(symbol: string): boolean {
    if (!this.#is(symbol)) return false;
    this.#next();
    return true;
  }

  #expect(symbol: string): void {
    if (!this.#take(symbol)) this.#expected(symbol);
  }

  #expected(what: string): never {
    this.#lexer.fail(`'${what}' expected`, this.#token.raw, this.#token.line);
  }

  /** Expects the symbol that closes `opened`, which stands on that line. */
  #close(symbol: string, opened: string, line: number): void {
    if (this.#take(symbol)) return;
    if (line === this.#token.line) this.#expected(symbol);
    this.#lexer.fail(
      `'${symbol}' expected (to close '${opened}' at line ${line})`,
      this.#token.raw,
      this.#token.line,
    );
  }

  /** Expects a name and returns it. */
  #name(): string {
    if (this.#token.kind === "name") return this.#next().text;
    return this.#expected("<name>");
  }

  #deeper<T>(parse: () => T): T {
    if (++this.#depth > DEPTH_MAX)
      this.#lexer.fail("chunk has too many syntax levels", undefined, this.#token.line);
    const result = parse();
    this.#depth--;
    return result;
  }

  // ---- variables

  get #function(): FunctionBody {
    return this.#functions.at(-1)!;
  }

  #begin(line: number): FunctionBody {
    const made: FunctionBody = {
      parameters: [],
      ownNames: new Set(),
      vararg: undefined,
      body: [],
      line,
      endLine: line,
      suspends: false,
    };
    this.#functions.push(made);
    this.#localCounts.push(0);
    this.#loops.push(0);
    return made;
  }

  #end(): void {
    this.#functions.pop();
    this.#localCounts.pop();
    this.#loops.pop();
  }

  #local(name: string): Local {
    const count = ++this.#localCounts[this.#localCounts.length - 1]!;
    if (count > LOCALS_MAX) {
      const line = this.#function.line;
      const of = line === 0 ? "main function" : `function at line ${line}`;
      this.#lexer.fail(`${of} has more than ${LOCALS_MAX} local variables`, undefined);
    }
    return { name, id: this.#idOf(name), owner: this.#function };
  }

  /** Chooses a variable's id: its own name if that is free, as debuggers show ids, else one with a number. */
  #idOf(name: string): string {
    const isFree =
      /^[A-Za-z_]\w*$/.test(name) &&
      !TAKEN.has(name) &&
      this.#functions.every(({ ownNames }) => !ownNames.has(name));
    if (isFree) {
      this.#function.ownNames.add(name);
      return name;
    }
    const plain = /^[A-Za-z_]\w*$/.test(name) ? name : "v";
    return `${plain}$${++this.#ids}`;
  }

  #declare(local: Local): void {
    this.#defined.add(local.name);
    this.#scopes.at(-1)!.locals.set(local.name, local);
  }

  #resolve(name: string, line: number): Expr {
    for (let k = this.#scopes.length - 1; k >= 0; k--) {
      const local = this.#scopes[k]!.locals.get(name);
      if (local !== undefined)
        return { type: "local", local, isUp: local.owner !== this.#function, line };
    }
    return { type: "global", name, line };
  }

  // ---- statements

  #block(declare: readonly Local[] = []): Block {
    return this.#inScope(declare, () => this.#statements());
  }

  #inScope<T>(declare: readonly Local[], parse: () => T): T {
    this.#scopes.push({ locals: new Map(), labels: new Set() });
    const count = this.#localCounts.at(-1)!;
    for (const local of declare) this.#declare(local);
    const result = this.#deeper(parse);
    this.#localCounts[this.#localCounts.length - 1] = count;
    this.#scopes.pop();
    return result;
  }

  get #blockEnds(): boolean {
    const { kind, text } = this.#token;
    return (
      kind === "eof" ||
      (kind === "symbol" &&
        (text === "end" || text === "else" || text === "elseif" || text === "until"))
    );
  }

  #statements(): Block {
    const found: Statement[] = [];
    while (!this.#blockEnds) {
      if (this.#take(";")) continue;
      const statement = this.#statement();
      found.push(statement);
      if (statement.type === "return") {
        this.#take(";");
        break;
      }
    }
    return found;
  }

  #statement(): Statement {
    const { line, text, kind } = this.#token;
    if (kind === "symbol") {
      switch (text) {
        case "if":
          return this.#if();
        case "while": {
          this.#next();
          const test = this.#expr();
          this.#expect("do");
          const body = this.#loopBody();
          this.#close("end", "while", line);
          return { type: "while", test, body, line };
        }
        case "do": {
          this.#next();
          const body = this.#block();
          this.#close("end", "do", line);
          return { type: "do", body, line };
        }
        case "for":
          return this.#for();
        case "repeat":
          return this.#repeat();
        case "function":
          return this.#functionStatement();
        case "local":
          this.#next();
          return this.#take("function") ? this.#localFunction(line) : this.#localStatement(line);
        case "return": {
          this.#next();
          const values = this.#blockEnds || this.#is(";") ? [] : this.#exprs();
          return { type: "return", values, line };
        }
        case "break":
          this.#next();
          if (this.#loops.at(-1) === 0) this.#lexer.fail("no loop to break", this.#token.raw, line);
          return { type: "break", line };
        case "goto":
          this.#next();
          return { type: "goto", label: this.#name(), line };
        case "::": {
          this.#next();
          const label = this.#name();
          this.#expect("::");
          const { labels } = this.#scopes.at(-1)!;
          if (labels.has(label)) this.#lexer.fail(`duplicate label '${label}'`, undefined, line);
          labels.add(label);
          return { type: "label", label, line };
        }
      }
    }
    return this.#exprStatement();
  }

  #loopBody(declare: readonly Local[] = []): Block {
    this.#loops[this.#loops.length - 1]!++;
    const body = this.#block(declare);
    this.#loops[this.#loops.length - 1]!--;
    return body;
  }

  #if(): Statement {
    const { line } = this.#next();
    const arms: { test: Expr | undefined; body: Block }[] = [];
    const arm = () => {
      const test = this.#expr();
      this.#expect("then");
      arms.push({ test, body: this.#block() });
    };
    arm();
    while (this.#take("elseif")) arm();
    if (this.#take("else")) arms.push({ test: undefined, body: this.#block() });
    this.#close("end", "if", line);
    return { type: "if", arms, line };
  }

  #for(): Statement {
    const { line } = this.#next();
    const first = this.#name();
    if (this.#take("=")) {
      const from = this.#expr();
      this.#expect(",");
      const to = this.#expr();
      const step = this.#take(",") ? this.#expr() : undefined;
      this.#expect("do");
      const variable = this.#local(first);
      const body = this.#loopBody([variable]);
      this.#close("end", "for", line);
      return { type: "for", variable, from, to, step, body, line };
    }
    const names = [first];
    while (this.#take(",")) names.push(this.#name());
    if (!this.#take("in")) this.#lexer.fail("'=' or 'in' expected", this.#token.raw, line);
    const values = this.#exprs();
    this.#expect("do");
    const variables = names.map((name) => this.#local(name));
    const body = this.#loopBody(variables);
    this.#close("end", "for", line);
    return { type: "forIn", variables, values, body, line };
  }

  /** The condition can use the body's locals. */
  #repeat(): Statement {
    const { line } = this.#next();
    this.#loops[this.#loops.length - 1]!++;
    const statement = this.#inScope([], (): Statement => {
      const body = this.#statements();
      this.#loops[this.#loops.length - 1]!--;
      this.#close("until", "repeat", line);
      return { type: "repeat", body, test: this.#expr(), line };
    });
    return statement;
  }

  #functionStatement(): Statement {
    const { line } = this.#next();
    const name = this.#name();
    let target = this.#resolve(name, line);
    let isMethod = false;
    let last = name;
    while (!isMethod && (this.#is(".") || this.#is(":"))) {
      isMethod = this.#next().text === ":";
      const key = this.#token;
      last = this.#name();
      target = {
        type: "index",
        object: target,
        key: { type: "string", value: last, line: key.line },
        line: key.line,
      };
    }
    this.#defined.add(last);
    const body = this.#functionBody(line, isMethod);
    return { type: "assign", targets: [target], values: [{ type: "function", body, line }], line };
  }

  #localFunction(line: number): Statement {
    const local = this.#local(this.#name());
    this.#declare(local);
    return { type: "localFunction", local, body: this.#functionBody(line, false), line };
  }

  #localStatement(line: number): Statement {
    const names = [this.#name()];
    while (this.#take(",")) names.push(this.#name());
    const values = this.#take("=") ? this.#exprs() : [];
    const locals = names.map((name) => this.#local(name));
    for (const local of locals) this.#declare(local);
    return { type: "local", locals, values, line };
  }

  #exprStatement(): Statement {
    const { line } = this.#token;
    const first = this.#suffixed();
    if (first.type === "call" && !this.#is("=") && !this.#is(","))
      return { type: "call", call: first, line };
    const targets = [first];
    while (this.#take(",")) targets.push(this.#suffixed());
    for (const target of targets) {
      if (target.type !== "local" && target.type !== "global" && target.type !== "index")
        this.#lexer.fail("syntax error", this.#token.raw, this.#token.line);
      if (target.type === "global") this.#defined.add(target.name);
      if (target.type === "index" && target.key.type === "string")
        this.#defined.add(target.key.value);
    }
    this.#expect("=");
    return { type: "assign", targets, values: this.#exprs(), line };
  }

  // ---- expressions

  #exprs(): Expr[] {
    const found = [this.#expr()];
    while (this.#take(",")) found.push(this.#expr());
    return found;
  }

  #expr(strength = 0): Expr {
    return this.#deeper(() => {
      let left = this.#unary();
      for (;;) {
        const op = this.#token.kind === "symbol" ? this.#token.text : "";
        const binding = Object.hasOwn(BINARY, op) ? BINARY[op] : undefined;
        if (binding === undefined || binding[0] <= strength) return left;
        const { line } = this.#next();
        const right = this.#expr(binding[1]);
        left = { type: "binary", op, left, right, line };
      }
    });
  }

  #unary(): Expr {
    const { line, text } = this.#token;
    if (this.#is("not") || this.#is("-") || this.#is("#")) {
      this.#next();
      const operand = this.#expr(UNARY_STRENGTH);
      if (text === "-" && operand.type === "number" && operand.value !== 0)
        return { ...operand, value: -operand.value };
      return { type: "unary", op: text, operand, line };
    }
    return this.#simple();
  }

  #simple(): Expr {
    const { kind, text, line, number } = this.#token;
    if (kind === "number") {
      this.#next();
      return { type: "number", value: number, line };
    }
    if (kind === "string") return { type: "string", value: this.#next().text, line };
    if (kind === "symbol") {
      switch (text) {
        case "nil":
        case "true":
        case "false":
          this.#next();
          return { type: text, line };
        case "...":
          this.#next();
          if (this.#function.vararg === undefined)
            this.#lexer.fail("cannot use '...' outside a vararg function", "...", line);
          return { type: "vararg", line };
        case "{":
          return this.#table();
        case "function":
          this.#next();
          return { type: "function", body: this.#functionBody(line, false), line };
      }
    }
    return this.#suffixed();
  }

  /** A name or an expression in parentheses, with the indexes and calls that follow. */
  #suffixed(): Expr {
    let expr = this.#primary();
    for (;;) {
      const { line } = this.#token;
      if (this.#take(".")) {
        const key = this.#token.line;
        expr = {
          type: "index",
          object: expr,
          key: { type: "string", value: this.#name(), line: key },
          line,
        };
      } else if (this.#take("[")) {
        const key = this.#expr();
        this.#expect("]");
        expr = { type: "index", object: expr, key, line };
      } else if (this.#take(":")) {
        const method = this.#name();
        expr = this.#call(expr, method);
      } else if (this.#is("(") || this.#is("{") || this.#token.kind === "string") {
        expr = this.#call(expr, undefined);
      } else return expr;
    }
  }

  #primary(): Expr {
    const { line, kind } = this.#token;
    if (kind === "name") return this.#resolve(this.#next().text, line);
    if (this.#take("(")) {
      const inner = this.#expr();
      this.#close(")", "(", line);
      return { type: "paren", inner, line };
    }
    this.#lexer.fail("unexpected symbol", this.#token.raw, line);
  }

  #call(callee: Expr, method: string | undefined): Call {
    const { line, kind } = this.#token;
    if (kind === "string") {
      const value = this.#next().text;
      return { type: "call", callee, method, args: [{ type: "string", value, line }], line };
    }
    if (this.#is("{")) return { type: "call", callee, method, args: [this.#table()], line };
    if (!this.#is("(")) this.#lexer.fail("function arguments expected", this.#token.raw, line);
    this.#next();
    const args = this.#is(")") ? [] : this.#exprs();
    this.#close(")", "(", line);
    return { type: "call", callee, method, args, line };
  }

  #table(): Expr {
    const { line } = this.#next();
    const items: Item[] = [];
    while (!this.#is("}")) {
      items.push(this.#item());
      if (!this.#take(",") && !this.#take(";")) break;
    }
    this.#close("}", "{", line);
    return { type: "table", items, line };
  }

  #item(): Item {
    if (this.#take("[")) {
      const key = this.#expr();
      this.#expect("]");
      this.#expect("=");
      if (key.type === "string") this.#defined.add(key.value);
      return { key, value: this.#expr() };
    }
    if (this.#token.kind === "name") {
      this.#ahead ??= this.#lexer.next();
      if (this.#ahead.kind === "symbol" && this.#ahead.text === "=") {
        const { text, line } = this.#next();
        this.#next();
        this.#defined.add(text);
        return { key: { type: "string", value: text, line }, value: this.#expr() };
      }
    }
    return { key: undefined, value: this.#expr() };
  }

  /** Parses a function from its parameters on. */
  #functionBody(line: number, isMethod: boolean): FunctionBody {
    const body = this.#begin(line);
    if (isMethod) body.parameters.push(this.#local("self"));
    this.#expect("(");
    if (!this.#is(")")) {
      do {
        if (this.#take("...")) {
          body.vararg = `$va${++this.#ids}`;
          break;
        }
        body.parameters.push(this.#local(this.#name()));
      } while (this.#take(","));
    }
    this.#expect(")");
    body.body = this.#block(body.parameters);
    body.endLine = this.#token.line;
    this.#close("end", "function", line);
    this.#end();
    return body;
  }
}
