// How bad something is: a shape and a word, and only then a colour.

const LEVELS = [
  { name: "ok", mark: "○", word: "nothing wrong" },
  { name: "low", mark: "◔", word: "low" },
  { name: "warning", mark: "◆", word: "warning" },
  { name: "critical", mark: "▲", word: "critical" },
] as const;

export type Level = (typeof LEVELS)[number];

/** By its number, 0 to 3. */
export function level(severity: number): Level {
  return LEVELS[Math.max(0, Math.min(3, Math.round(severity)))];
}

/** By the word that a diagnosis has. */
export function levelOf(word: string): Level {
  return LEVELS.find((level) => level.name === word || level.word === word) ?? LEVELS[0];
}

/** `unknown` is no clean bill of health. */
export function Severity({ severity, code }: { severity: number; code?: string }) {
  const { name, mark, word } = level(severity);
  const isUnknown = code === "unknown";
  return <span class={`severity ${isUnknown ? "low" : name}`}>{isUnknown ? "? unknown" : `${mark} ${word}`}</span>;
}
