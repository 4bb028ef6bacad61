// A signal over time, as small as a word.

const WIDTH = 72;
const HEIGHT = 16;

interface Props {
  values: { start_unix_ms: number; value: number }[];
  fromMs: number;
  untilMs: number;
  unit: string;
}

export function Spark({ values, fromMs, untilMs, unit }: Props) {
  if (values.length < 2) return <svg class="spark" width={WIDTH} height={HEIGHT} aria-hidden="true" />;
  const most = values.reduce((most, value) => Math.max(most, value.value), unit === "%" ? 100 : 0) || 1;
  const x = (ms: number) => ((ms - fromMs) / Math.max(1, untilMs - fromMs)) * WIDTH;
  const y = (value: number) => HEIGHT - 1 - (Math.max(0, value) / most) * (HEIGHT - 2);
  const points = values.map((value) => `${x(value.start_unix_ms).toFixed(1)},${y(value.value).toFixed(1)}`).join(" ");
  return (
    <svg class="spark" width={WIDTH} height={HEIGHT} viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true">
      <polyline points={points} />
    </svg>
  );
}
