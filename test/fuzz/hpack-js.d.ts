/** The part of hpack.js that the tests use; the package brings no types. */
declare module "hpack.js" {
  export interface Field {
    readonly name: string;
    readonly value: string;
    /** Set by the decompressor, heeded by the compressor. */
    readonly neverIndex?: boolean;
    /** For the compressor: false keeps the field out of the table. */
    readonly incremental?: boolean;
    /** For the compressor: false leaves strings as they are. */
    readonly huffman?: boolean;
  }
  interface Options {
    readonly table: { readonly maxSize: number };
  }
  /** Both are streams, whose output passes through `push`. */
  export interface Compressor {
    push(bytes: Uint8Array): boolean;
    write(fields: readonly Field[]): boolean;
    updateTableSize(size: number): void;
    /** Writes two changes of the table's size: to nothing, and back. */
    reset(): void;
  }
  export interface Decompressor {
    push(field: Field): boolean;
    write(block: Uint8Array): boolean;
    updateTableSize(size: number): void;
    execute(): void;
    on(event: "error", listener: (error: Error) => void): void;
  }
  const library: {
    readonly compressor: { create(options: Options): Compressor };
    readonly decompressor: { create(options: Options): Decompressor };
  };
  export default library;
}
