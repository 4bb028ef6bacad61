// Numbers as people read them: three digits that matter, and always a unit.

/** Three digits that matter. */
function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 100 || size === 0) return value.toFixed(0);
  return value.toFixed(size >= 10 ? 1 : 2);
}

function scaled(value: number, steps: [number, string][]): string {
  for (const [size, unit] of steps) {
    if (Math.abs(value) >= size) return `${digits(value / size)} ${unit}`;
  }
  const [size, unit] = steps[steps.length - 1];
  return `${digits(value / size)} ${unit}`;
}

/** A length of thread time; beyond a minute in minutes and hours. */
export function duration(ns: number): string {
  return scaled(ns, [
    [3600e9, "h"],
    [60e9, "min"],
    [1e9, "s"],
    [1e6, "ms"],
    [1e3, "µs"],
    [1, "ns"],
  ]);
}

/** A number of things. */
export function count(value: number): string {
  if (Math.abs(value) < 10_000 && Number.isInteger(value)) return String(value);
  return scaled(value, [
    [1e9, "G"],
    [1e6, "M"],
    [1e3, "k"],
    [1, ""],
  ]).trimEnd();
}

/** A number with all of its digits, in groups of three. */
export function whole(value: number): string {
  return value.toLocaleString("en-US");
}

/** A size, in decimal units. */
export function bytes(value: number): string {
  return scaled(value, [
    [1e12, "TB"],
    [1e9, "GB"],
    [1e6, "MB"],
    [1e3, "kB"],
    [1, "B"],
  ]);
}

/** A weight of a profile, in its unit. */
export function weight(value: number, unit: string): string {
  return unit === "ns" ? duration(value) : count(value);
}

/** A part of a whole, 0 to 1. */
export function percent(share: number): string {
  if (!Number.isFinite(share)) return "–";
  const value = share * 100;
  if (value !== 0 && Math.abs(value) < 0.01) return value < 0 ? "> −0.01 %" : "< 0.01 %";
  return `${value.toFixed(Math.abs(value) >= 99.95 ? 0 : Math.abs(value) >= 10 ? 1 : 2).replace("-", "−")} %`;
}

/** A difference of two parts, with its sign. */
export function points(difference: number): string {
  const size = Math.abs(difference) * 100;
  const sign = difference > 0 ? "+" : difference < 0 ? "−" : "";
  return `${sign}${size.toFixed(size >= 10 ? 1 : 2)} %`;
}

/** A value of a signal or a fact, whose unit is as agents name it: `%`, `1`, `/s`, `B/s`, `ms`, `B`. */
export function measured(value: number, unit: string): string {
  switch (unit) {
    case "1":
      return count(value);
    case "/s":
      return `${count(value)}/s`;
    case "B/s":
      return `${bytes(value)}/s`;
    case "B":
      return bytes(value);
    case "ms":
      return duration(value * 1e6);
    default:
      return `${digits(value)} ${unit}`;
  }
}

/** How long, in one or two units. */
export function span(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 60) return `${s} s`;
  const min = Math.floor(s / 60);
  if (min < 60) return min < 10 && s % 60 ? `${min} min ${s % 60} s` : `${min} min`;
  const h = Math.floor(min / 60);
  if (h < 24) return min % 60 ? `${h} h ${min % 60} min` : `${h} h`;
  const d = Math.floor(h / 24);
  return h % 24 ? `${d} d ${h % 24} h` : `${d} d`;
}

const two = (value: number) => String(value).padStart(2, "0");

/** A moment by this browser's clock; the day only where it is not today's. */
export function moment(unixMs: number, nowMs: number = Date.now()): string {
  const [day, time] = dayAndTime(unixMs);
  return new Date(unixMs).toDateString() === new Date(nowMs).toDateString() ? time : `${day} ${time}`;
}

/** A day and a time of it by this browser's clock: 2026-01-31, 12:00:00. */
export function dayAndTime(unixMs: number): [day: string, time: string] {
  const at = new Date(unixMs);
  return [`${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())}`, `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`];
}
