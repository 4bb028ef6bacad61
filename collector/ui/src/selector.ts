// Selectors, as the API reads them: TYPE{label="value", ...}.

export type Operator = "=" | "!=" | "=~" | "!~";

export interface Matcher {
  label: string;
  operator: Operator;
  value: string;
}

/** A string between double quotes, with the escapes that the API knows. */
export function quote(text: string): string {
  return `"${text.replace(/[\\"]/g, "\\$&").replace(/[\u0000-\u001f\u007f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)}"`;
}

/** A text that a regular expression is to match as it is. */
export function escapeRegex(text: string): string {
  return text.replace(/[.*+?^${}()|[\]\\/-]/g, (c) => (c === "/" || c === "-" ? c : `\\${c}`));
}

const IDENTIFIER = /^[A-Za-z_][A-Za-z0-9_]*$/;

export function written(matcher: Matcher): string {
  const name = IDENTIFIER.test(matcher.label) ? matcher.label : quote(matcher.label);
  return `${name}${matcher.operator}${quote(matcher.value)}`;
}

/** `cpu{host="a"}`; without a type only the matchers. */
export function selector(type: string, matchers: Matcher[]): string {
  return `${type}{${matchers.map(written).join(",")}}`;
}

export const is = (label: string, value: string): Matcher => ({ label, operator: "=", value });

/** One of several values. */
export function oneOf(label: string, values: string[]): Matcher {
  if (values.length === 1) return is(label, values[0]);
  return { label, operator: "=~", value: values.map(escapeRegex).join("|") };
}

/** The type and what stands between the braces. What is no selector is all type, and the API says what is wrong with it. */
export function split(text: string): { type: string; matchers: string } {
  const at = text.indexOf("{");
  if (at < 0 || !text.trimEnd().endsWith("}")) return { type: text, matchers: "" };
  return { type: text.slice(0, at).trim(), matchers: text.trimEnd().slice(at + 1, -1) };
}

/** Adds a matcher to what stands between braces. */
export function and(matchers: string, matcher: Matcher): string {
  const before = matchers.trim().replace(/,$/, "");
  return before ? `${before},${written(matcher)}` : written(matcher);
}

/** The matchers that stand between braces, as they are written. A value may have commas. */
function parts(matchers: string): string[] {
  return (matchers.match(/(?:"(?:[^"\\]|\\.)*"|[^",])+/g) ?? []).map((part) => part.trim()).filter(Boolean);
}

/** The label of a matcher as it is written. */
function labelOf(matcher: string): string {
  const name = /^("(?:[^"\\]|\\.)*"|[A-Za-z0-9_]*)/.exec(matcher)![0];
  return name.startsWith('"') ? name.slice(1, -1).replace(/\\(.)/g, "$1") : name;
}

/** What stands between braces, without matchers of other labels than these. */
export function onlyOf(matchers: string, labels: ReadonlySet<string>): string {
  return parts(matchers)
    .filter((matcher) => labels.has(labelOf(matcher)))
    .join(",");
}

/** The one value that a label may have by what stands between braces; `undefined` where it may have several. */
export function valueOf(matchers: string, label: string): string | undefined {
  const matcher = parts(matchers).find((matcher) => labelOf(matcher) === label && /^(?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_]*)\s*=\s*"/.test(matcher));
  try {
    return matcher && (JSON.parse(matcher.slice(matcher.indexOf("=") + 1).trim()) as string);
  } catch {
    return undefined;
  }
}

/** Whether labels fulfil what stands between braces; what cannot be read here, or is another dialect of regular expressions, excludes nothing. */
export function admits(matchers: string, labels: Readonly<Record<string, string>>): boolean {
  return parts(matchers).every((matcher) => {
    const found = /^(?:"(?:[^"\\]|\\.)*"|[A-Za-z0-9_]*)\s*(=~|!~|!=|=)\s*("(?:[^"\\]|\\.)*")$/.exec(matcher);
    if (!found) return true;
    const value = labels[labelOf(matcher)] ?? "";
    try {
      const wanted = JSON.parse(found[2]) as string;
      const isSame = found[1].endsWith("~") ? new RegExp(`^(?:${wanted})$`, "su").test(value) : value === wanted;
      return found[1].startsWith("!") ? !isSame : isSame;
    } catch {
      return true;
    }
  });
}

/** The same query with this value of the label: whatever it said of that is replaced. */
export function against(query: string, label: string, value: string): string {
  const { type, matchers } = split(query);
  const others = parts(matchers).filter((matcher) => labelOf(matcher) !== label);
  return `${type}{${[...others, written(is(label, value))].join(",")}}`;
}

/** What is being typed at a place between the braces, for completion. */
export type Typing =
  | { what: "label"; prefix: string; from: number }
  | { what: "value"; label: string; prefix: string; from: number }
  | { what: "nothing" };

/** What stands before the caret. Matchers before it are skipped with their quotes, for a value may have commas. */
export function typing(text: string, caret: number): Typing {
  let at = 0;
  for (;;) {
    const rest = text.slice(at, caret);
    const space = /^[\s,]*/.exec(rest)![0].length;
    const name = /^("(?:[^"\\]|\\.)*"|[A-Za-z0-9_]*)/.exec(rest.slice(space))![0];
    const operator = /^\s*(=~|!~|!=|=)\s*/.exec(rest.slice(space + name.length));
    if (!operator) {
      const isWord = space + name.length === rest.length;
      return isWord ? { what: "label", prefix: name.replace(/^"/, ""), from: at + space } : { what: "nothing" };
    }
    const value = rest.slice(space + name.length + operator[0].length);
    const whole = /^"(?:[^"\\]|\\.)*"/.exec(value);
    if (!whole) {
      const label = name.startsWith('"') ? name.slice(1, -1).replace(/\\(.)/g, "$1") : name;
      const isValue = value === "" || value.startsWith('"');
      return isValue ? { what: "value", label, prefix: value.slice(1), from: caret - value.length } : { what: "nothing" };
    }
    at = caret - value.length + whole[0].length;
  }
}
