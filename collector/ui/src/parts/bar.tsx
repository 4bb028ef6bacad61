// Thread time as one bar of its classes.

import { classOf, CLASSES, meaning } from "../classes";
import { percent } from "../units";

export interface Part {
  name: string;
  weight: number;
}

/** In the order that classes have everywhere. */
export function ordered(parts: Part[]): Part[] {
  const place = (name: string) => {
    const at = CLASSES.findIndex((known) => known.name === name);
    return at < 0 ? CLASSES.length : at;
  };
  return parts.filter((part) => part.weight > 0).sort((a, b) => place(a.name) - place(b.name));
}

export function ClassBar({ parts, label, tall }: { parts: Part[]; label: string; tall?: boolean }) {
  const shown = ordered(parts);
  const all = shown.reduce((sum, part) => sum + part.weight, 0);
  if (all <= 0) return <span class="quiet">–</span>;
  const told = shown.map((part) => `${part.name} ${percent(part.weight / all)}`).join(", ");
  return (
    <div class={tall ? "bar tall" : "bar"} role="img" aria-label={`${label}: ${told}`}>
      {shown.map((part) => (
        <span
          key={part.name}
          style={{ width: `${(part.weight / all) * 100}%`, background: classOf(part.name).colour }}
          title={`${part.name}: ${percent(part.weight / all)}, ${meaning(part.name)}`}
        >
          {tall && part.weight / all > 0.08 ? part.name : ""}
        </span>
      ))}
    </div>
  );
}
