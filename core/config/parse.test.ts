import { describe, expect, it } from "vitest";
import { formatDiagnostic, Report } from "./diagnostic.ts";
import { plain } from "./document.ts";
import { type Format, parseDocument } from "./parse.ts";

function parse(text: string, format: Format = "yaml") {
  const report = new Report("a.yaml", text, { strict: false });
  const root = parseDocument(text, format, report);
  return { value: root && plain(root), root, report };
}

describe("a plain YAML scalar", () => {
  const cases: readonly [string, unknown][] = [
    ["y", true],
    ["Yes", true],
    ["on", true],
    ["TRUE", true],
    ["n", false],
    ["No", false],
    ["OFF", false],
    ["yEs", "yEs"],
    ["~", undefined],
    ["null", undefined],
    ["12", 12],
    ["-3", -3],
    ["0x1F", 31],
    ["010", 8],
    ["08", 8],
    ["1.5", 1.5],
    ["1e3", 1000],
    [".inf", Number.POSITIVE_INFINITY],
    ["18446744073709551615", "18446744073709551615"],
    ["0.25s", "0.25s"],
    ["1:30", "1:30"],
    ["127.0.0.1", "127.0.0.1"],
    ["2024-01-01", "2024-01-01"],
    ["'on'", "on"],
    ['"5"', "5"],
    ["!!str 5", "5"],
  ];
  for (const [text, value] of cases)
    it(`${text} is read as Envoy reads it`, () => {
      expect(parse(`a: ${text}`).value).toEqual({ a: value });
    });
});

describe("a tree", () => {
  it("knows where every value stands, and what a person would call it", () => {
    const { root, report } = parse('a:\n  - b: 1\n    "c.d": [x, y]\n');
    const list = root!.get("a")!;
    const map = list.kind === "list" ? list.items[0]! : list;
    const inner = map.kind === "map" ? map.get("c.d")! : map;
    const place = inner.kind === "list" ? inner.items[1]!.place : inner.place;
    expect(report.diagnostic(place, "here")).toMatchObject({
      line: 3,
      column: 16,
      path: 'a[0]["c.d"][1]',
    });
  });

  it("may be as large as its file; only aliases make more of it than is written", () => {
    const many = Array.from({ length: 210_000 }, (_, k) => k);
    expect(parse(`a: [${many.join()}]`).report.failed).toBe(false);
    const twice = `a: &a [${many.join()}]\nb: *a\n`;
    expect(parse(twice).report.errors[0]?.message).toBe("aliases make the file too large");
  });

  it("keeps a key that names a prototype an ordinary key", () => {
    const { value } = parse('{"__proto__": {"x": 1}, "constructor": 2}', "json");
    expect(Object.keys(value as object)).toEqual(["__proto__", "constructor"]);
    expect(Object.getPrototypeOf(value)).toBe(Object.prototype);
  });

  it("is not built from text that is nested without end", () => {
    const deep = "[".repeat(5000) + "]".repeat(5000);
    expect(parse(`a: ${deep}`).report.errors[0]!.message).toBe("nested too deeply");
    expect(parse(`{"a": ${deep}}`, "json").report.errors[0]!.message).toMatch(/nested too deeply/);
  });

  it("is not built of an alias within what it means", () => {
    const [error] = parse("a: &m\n  b: [1, *m]\n").report.errors;
    expect(error).toMatchObject({
      line: 2,
      column: 10,
      path: "a.b[1]",
      message: 'the alias "m" stands in what it means',
    });
    expect(parse("a: &m [1]\nb: [*m, *m]\n").value).toEqual({ a: [1], b: [[1], [1]] });
  });

  it("is that of the first document; a second one is told", () => {
    const { value, report } = parse("---\na: 1\n---\nb: 2\n");
    expect(value).toEqual({ a: 1 });
    expect(report.warnings.map(formatDiagnostic)).toEqual([
      'a.yaml:3:1: a second YAML document begins here, which Envoy does not read either; take the "---" away, or what follows it',
    ]);
    expect(parse("---\na: 1\n...\n---\n").report.warnings).toEqual([]);
  });

  it("is told where bytes are not UTF-8, which Envoy takes as they are", () => {
    const { value, report } = parse(Buffer.from("a: 1\nb: caf\xe9\n", "latin1").toString());
    expect(value).toEqual({ a: 1, b: "caf\uFFFD" });
    expect(report.warnings.map(formatDiagnostic)).toEqual([
      'a.yaml:2:7: bytes that are not UTF-8 are read as "\uFFFD"; save the file in UTF-8',
    ]);
  });

  it("is not built from what is no text in UTF-8", () => {
    const utf16 = Buffer.from("a: 1\n", "utf16le").toString();
    for (const text of [utf16, "\x1f\x8b\b\0"])
      expect(parse(text).report.errors.map(formatDiagnostic)[0]).toMatch(
        /^a.yaml:1:\d: a zero byte, which no text has; the file must be YAML or JSON in UTF-8$/,
      );
  });
});

describe("JSON", () => {
  it("is read strictly, and says where it is not JSON", () => {
    const wrong: readonly [string, string][] = [
      [
        '{"a": 1, }',
        '1:10: not JSON: "}" where a key in double quotes should be; take the comma before it away',
      ],
      ["[1,]", '1:4: not JSON: "]" where a value should be; take the comma before it away'],
      ['{"a": }', '1:7: not JSON: "}" where a value should be'],
      ["{ // a", '1:3: not JSON: "/" where a key in double quotes should be; JSON has no comments'],
      [
        "{'a'",
        `1:2: not JSON: "'" where a key in double quotes should be; JSON has double quotes only`,
      ],
      ['{"a" 1}', '1:6: not JSON: "1" where ":" should be'],
      ['{"a": tru}', '1:7: not JSON: "t" where a value should be'],
      ['{"a": 1} x', '1:10: not JSON: "x" where the end should be'],
      ['{"a": "\\x"}', "1:7: not JSON: an unknown escape in a string"],
      ["[1 2]", '1:4: not JSON: "2" where "," or "]" should be'],
    ];
    for (const [text, message] of wrong) {
      expect(formatDiagnostic(parse(text, "json").report.errors[0]!)).toBe(`a.yaml:${message}`);
    }
  });

  it("is read as JSON in a file that is named as YAML", () => {
    const text = ' {"a": 18446744073709551615, "b": [1.5, "yes"],\n "c": tru}';
    const found = parse(text.replace("tru}", "true}"), "yaml");
    expect(found.value).toEqual({ a: "18446744073709551615", b: [1.5, "yes"], c: true });
    expect(found.report.errors).toEqual([]);
    // No JSON: a flow mapping of YAML, with a plain scalar.
    expect(parse(text, "yaml").value).toMatchObject({ c: "tru" });
  });

  it("keeps numbers that a double cannot hold", () => {
    expect(parse('{"a": 18446744073709551615, "b": -2.5e1, "y": "\\u00e9"}', "json").value).toEqual(
      {
        a: "18446744073709551615",
        b: -25,
        y: "é",
      },
    );
  });
});
