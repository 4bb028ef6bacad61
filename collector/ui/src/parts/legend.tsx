// What colours stand for.

interface Props {
  entries: readonly { name: string; colour: string }[];
  label?: string;
}

export function Legend({ entries, label }: Props) {
  return (
    <ul class="legend" aria-label={label}>
      {entries.map((entry) => (
        <li key={entry.name}>
          <span class="swatch" style={{ background: entry.colour }} />
          {entry.name}
        </li>
      ))}
    </ul>
  );
}
