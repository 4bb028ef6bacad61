// Thread time over time: areas on each other, in the colours of their classes. Pulling the pointer across chooses a time.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Decomposition } from "../api/types";
import { colour, useTheme } from "../theme";
import { moment } from "../units";

const HEIGHT = 150;

interface Props {
  answer: Decomposition;
  label: string;
  /** A time was chosen, Unix seconds. */
  onRange: (from: number, until: number) => void;
}

/** Each class on those before it, threads at a time. Steps of which nothing is stored are gaps. */
function stacked(answer: Decomposition): { times: number[]; areas: (number | null)[][] } {
  const step = answer.step_ms ?? 1;
  const steps = answer.scopes[0]?.steps ?? [];
  const known = new Map(steps.map((at) => [at.start_unix_ms, at.weights]));
  const times: number[] = [];
  for (let at = answer.from_unix_ms; at < answer.until_unix_ms; at += step) times.push(at);
  const sums = times.map(() => 0);
  const areas = answer.classes.map((_, place) =>
    times.map((time, at) => {
      const weights = known.get(time);
      if (!weights) return null;
      sums[at] += weights[place] / (step * 1e6);
      return sums[at];
    }),
  );
  return { times: times.map((ms) => ms / 1000), areas };
}

/** A moment below the graph, with seconds or the day only where they tell something. */
function tick(at: number, before: number | undefined, step: number): string {
  const [day, time] = moment(at * 1000, 0).split(" ");
  const isNewDay = before === undefined ? step >= 43_200 : moment(before * 1000, 0).split(" ")[0] !== day;
  return isNewDay ? day.slice(5) : time.slice(0, step < 60 ? 8 : 5);
}

export function StackedTime({ answer, label, onRange }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const theme = useTheme();
  const chosen = useRef(onRange);
  useEffect(() => {
    chosen.current = onRange;
  });
  useLayoutEffect(() => {
    const { times, areas } = stacked(answer);
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    // The highest area first, so that the lower ones are drawn over it.
    const order = answer.classes.map((_, at) => at).reverse();
    const plot = new uPlot(
      {
        width: box.current!.clientWidth,
        height: HEIGHT,
        padding: [8, 8, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false } },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        axes: [
          { ...axis, size: 28, values: (_plot, values) => values.map((value, at) => tick(value, values[at - 1], values[1] - values[0])) },
          { ...axis, size: 46, values: (_plot, values) => values.map((value) => (value >= 10 ? value.toFixed(0) : String(Number(value.toFixed(2))))) },
        ],
        series: [
          {},
          ...order.map((at) => ({ fill: answer.classes[at].colour, stroke: answer.classes[at].colour, width: 0.5, points: { show: false } })),
        ],
        hooks: {
          setSelect: [
            (plot) => {
              const { left, width } = plot.select;
              if (width > 4) chosen.current(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
              plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            },
          ],
        },
      },
      [times, ...order.map((at) => areas[at])] as uPlot.AlignedData,
      box.current!,
    );
    const observer = new ResizeObserver(() => plot.setSize({ width: box.current?.clientWidth ?? 300, height: HEIGHT }));
    observer.observe(box.current!);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [answer, theme]);
  return (
    <figure class="chart">
      <figcaption>
        {label} <span class="quiet">threads at a time · pull across to see the stacks of a time</span>
      </figcaption>
      <div ref={box} role="img" aria-label={label} />
    </figure>
  );
}
