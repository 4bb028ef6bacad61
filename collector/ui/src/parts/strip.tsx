// What limited a host over time: one strip, a piece for each stretch.

import type { Span } from "../api/types";
import { moment } from "../units";
import { level } from "./severity";

interface Props {
  spans: Span[];
  fromMs: number;
  untilMs: number;
  label: string;
}

export function Strip({ spans, fromMs, untilMs, label }: Props) {
  const all = Math.max(1, untilMs - fromMs);
  const place = (ms: number) => (Math.min(untilMs, Math.max(fromMs, ms)) - fromMs) / all;
  const codes = [...new Set(spans.map((span) => span.code))];
  return (
    <div class="strip" role="img" aria-label={`${label}: ${codes.length ? codes.join(", ") : "nothing was diagnosed"}`}>
      {spans.map((span, at) => {
        const left = place(span.from_unix_ms);
        return (
          <span
            key={at}
            class={`piece ${level(span.severity).name}`}
            style={{ left: `${left * 100}%`, width: `max(2px, ${(place(span.until_unix_ms) - left) * 100}%)` }}
            title={`${span.code}, ${level(span.severity).word}: ${moment(span.from_unix_ms)} to ${moment(span.until_unix_ms)}`}
          />
        );
      })}
    </div>
  );
}
