// Times and lengths of time as addresses have them, and as people read and type them.

import { dayAndTime } from "./units";

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

/** A time of the address as a field shows it: Unix seconds as a day and a time by this browser's clock. */
export function shownTime(time: string): string {
  return /^\d+(\.\d+)?$/.test(time) ? dayAndTime(Number(time) * 1000).join(" ") : time;
}

/** What was typed into such a field, as addresses have it. A time without a day is today's; what is none of these the collector reads. */
export function typedTime(text: string, before: string, nowMs = Date.now()): string {
  const typed = text.trim();
  // The field has no fractions of seconds: what was not touched stays.
  if (typed === shownTime(before)) return before;
  const found = /^(?:(\d{4}-\d\d-\d\d)[ T])?(\d\d?:\d\d(?::\d\d)?)$/.exec(typed);
  if (!found) return typed;
  const unixMs = Date.parse(`${found[1] ?? dayAndTime(nowMs)[0]}T${found[2].padStart(found[2].length + Number(found[2].indexOf(":") < 2), "0")}`);
  return Number.isFinite(unixMs) ? (unixMs / 1000).toFixed(0) : typed;
}

/** As long a time, so much earlier. One that ends now moves on, and so does that before it. */
export function earlier(from: string, until: string, byMs: number, nowMs = Date.now()): { from: string; until: string } {
  const untilMs = timeMs(until, nowMs);
  const fromMs = untilMs - lengthMs(from, until, nowMs);
  const shown = (ms: number) => (until.startsWith("now") ? `now-${Math.round((nowMs - ms + byMs) / 1000)}s` : ((ms - byMs) / 1000).toFixed(0));
  return { from: shown(fromMs), until: shown(untilMs) };
}
