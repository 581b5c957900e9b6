/** The syntax tree of a Lua program, which the parser makes and the compiler reads. */

export type Expr =
  | { readonly type: "nil" | "true" | "false" | "vararg"; readonly line: number }
  | { readonly type: "number"; readonly value: number; readonly line: number }
  | { readonly type: "string"; readonly value: string; readonly line: number }
  | { readonly type: "local"; readonly local: Local; readonly isUp: boolean; readonly line: number }
  | { readonly type: "global"; readonly name: string; readonly line: number }
  | { readonly type: "index"; readonly object: Expr; readonly key: Expr; readonly line: number }
  | Call
  | { readonly type: "function"; readonly body: FunctionBody; readonly line: number }
  | {
      readonly type: "binary";
      readonly op: string;
      readonly left: Expr;
      readonly right: Expr;
      readonly line: number;
    }
  | { readonly type: "unary"; readonly op: string; readonly operand: Expr; readonly line: number }
  | { readonly type: "paren"; readonly inner: Expr; readonly line: number }
  | { readonly type: "table"; readonly items: readonly Item[]; readonly line: number };

export interface Call {
  readonly type: "call";
  readonly callee: Expr;
  /** The method in `object:method(…)`, where `callee` is the object; undefined: a plain call. */
  readonly method: string | undefined;
  readonly args: readonly Expr[];
  readonly line: number;
}

/** An item of a table constructor; `key` undefined: the next index. */
export interface Item {
  readonly key: Expr | undefined;
  readonly value: Expr;
}

/** A local variable. `id` is its name in the generated code. */
export interface Local {
  readonly name: string;
  readonly id: string;
  readonly owner: FunctionBody;
}

export interface FunctionBody {
  readonly parameters: Local[];
  /** Names of the function's variables that are unchanged in the generated code. */
  readonly ownNames: Set<string>;
  /** The name of `...` in the generated code; undefined: the function has no varargs. */
  vararg: string | undefined;
  body: Block;
  readonly line: number;
  endLine: number;
  /** Whether a call in it may suspend the program, so that it is compiled to a generator. Set by the compiler. */
  suspends: boolean;
}

export type Block = readonly Statement[];

export type Statement =
  | {
      readonly type: "local";
      readonly locals: readonly Local[];
      readonly values: readonly Expr[];
      readonly line: number;
    }
  | {
      readonly type: "assign";
      readonly targets: readonly Expr[];
      readonly values: readonly Expr[];
      readonly line: number;
    }
  | { readonly type: "call"; readonly call: Call; readonly line: number }
  | { readonly type: "do"; readonly body: Block; readonly line: number }
  | { readonly type: "while"; readonly test: Expr; readonly body: Block; readonly line: number }
  | { readonly type: "repeat"; readonly body: Block; readonly test: Expr; readonly line: number }
  | {
      readonly type: "if";
      readonly arms: readonly { readonly test: Expr | undefined; readonly body: Block }[];
      readonly line: number;
    }
  | {
      readonly type: "for";
      readonly variable: Local;
      readonly from: Expr;
      readonly to: Expr;
      readonly step: Expr | undefined;
      readonly body: Block;
      readonly line: number;
    }
  | {
      readonly type: "forIn";
      readonly variables: readonly Local[];
      readonly values: readonly Expr[];
      readonly body: Block;
      readonly line: number;
    }
  | {
      readonly type: "localFunction";
      readonly local: Local;
      readonly body: FunctionBody;
      readonly line: number;
    }
  | { readonly type: "return"; readonly values: readonly Expr[]; readonly line: number }
  | { readonly type: "break"; readonly line: number }
  | { readonly type: "goto"; readonly label: string; readonly line: number }
  | { readonly type: "label"; readonly label: string; readonly line: number };
