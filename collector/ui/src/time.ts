// Lengths of time as addresses have them.

/** Steps of the graph over time: about as many as it has room for. */
const STEPS = 160;

/** A round length of steps for the time between two that were answered. */
export function stepFor(lengthMs: number): string {
  const seconds = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21_600, 86_400];
  const least = lengthMs / 1000 / STEPS;
  // Windows are ten seconds long: shorter steps would have gaps.
  return `${seconds.find((step) => step >= least && step >= 10) ?? 86_400}s`;
}

const UNIT_MS: Record<string, number> = { s: 1e3, m: 60e3, h: 3600e3, d: 86_400e3 };

/** A time as the address has it, in milliseconds; what cannot be read here is no number. */
export function timeMs(text: string, nowMs = Date.now()): number {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * 1000;
  if (text.startsWith("now")) {
    let ms = nowMs;
    for (const [, amount, unit] of text.matchAll(/(\d+)([smhd])/g)) ms -= Number(amount) * UNIT_MS[unit];
    return ms;
  }
  return Date.parse(text);
}

/** Milliseconds between two times as the address has them; what cannot be read here is taken for an hour. */
export function lengthMs(from: string, until: string, nowMs = Date.now()): number {
  const length = timeMs(until, nowMs) - timeMs(from, nowMs);
  return Number.isFinite(length) && length > 0 ? length : 3600e3;
}
