// Thread time over time: areas on each other, in the colours of their classes. A click chooses a moment, pulling across chooses a time; so do keys.

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import type { Decomposition } from "../api/types";
import { colour, useTheme } from "../theme";
import { moment } from "../units";

const HEIGHT = 150;
/** Classes of a moment that are told, the most first. */
const TOLD = 5;
/** A pull of fewer pixels is a click. */
const PULL = 4;

interface Props {
  answer: Decomposition;
  label: string;
  /** A time was chosen, Unix seconds. */
  onRange: (from: number, until: number) => void;
}

interface Stacked {
  /** When each step begins, Unix seconds, and at last when the last one ends. */
  times: number[];
  /** Threads at a time of each class in each step; `null` where nothing is stored. */
  threads: (number[] | null)[];
  /** Each class on those before it. */
  areas: (number | null)[][];
}

function stacked(answer: Decomposition): Stacked {
  const step = answer.step_ms ?? 1;
  const known = new Map((answer.scopes[0]?.steps ?? []).map((at) => [at.start_unix_ms, at.weights]));
  const times: number[] = [];
  for (let at = answer.from_unix_ms; at < answer.until_unix_ms; at += step) times.push(at);
  const threads = times.map((time) => known.get(time)?.map((weight) => weight / (step * 1e6)) ?? null);
  const areas = answer.classes.map((_, place) => threads.map((of) => (of ? of.slice(0, place + 1).reduce((sum, one) => sum + one, 0) : null)));
  // The last step is as wide as the others.
  for (const area of areas) area.push(area[area.length - 1] ?? null);
  return { times: [...times, answer.until_unix_ms].map((ms) => ms / 1000), threads, areas };
}

/** A moment below the graph, with seconds or the day only where they tell something. */
function tick(at: number, before: number | undefined, step: number): string {
  const [day, time] = moment(at * 1000, 0).split(" ");
  const isNewDay = before === undefined ? step >= 43_200 : moment(before * 1000, 0).split(" ")[0] !== day;
  return isNewDay ? day.slice(5) : time.slice(0, step < 60 ? 8 : 5);
}

export function StackedTime({ answer, label, onRange }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const plot = useRef<uPlot>();
  const theme = useTheme();
  const series = useMemo(() => stacked(answer), [answer]);
  const last = series.threads.length - 1;
  /** The step that the pointer or the keyboard is at. */
  const [at, setAt] = useState<number>();
  /** Where a run of steps was begun with Shift. */
  const [begun, setBegun] = useState<number>();
  const chosen = useRef(onRange);
  useEffect(() => {
    chosen.current = onRange;
  });
  useLayoutEffect(() => {
    const { times, areas } = series;
    const axis = { stroke: colour("quiet"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    // The highest area first, so that the lower ones are drawn over it.
    const order = answer.classes.map((_, at) => at).reverse();
    // A step is as high from its begin to its end: between two there is nothing to interpolate.
    const paths = uPlot.paths.stepped!({ align: 1 });
    const made = new uPlot(
      {
        width: box.current!.clientWidth,
        height: HEIGHT,
        // The last moment has room for its half.
        padding: [8, 26, 0, 0],
        legend: { show: false },
        cursor: { y: false, points: { show: false }, drag: { x: true, y: false, setScale: false, dist: PULL } },
        scales: { y: { range: (_plot, _low, high) => [0, high > 0 ? high * 1.05 : 1] } },
        axes: [
          { ...axis, size: 28, space: 70, values: (_plot, values) => values.map((value, at) => tick(value, values[at - 1], values[1] - values[0])) },
          { ...axis, size: 46, values: (_plot, values) => values.map((value) => (value >= 10 ? value.toFixed(0) : String(Number(value.toFixed(2))))) },
        ],
        series: [
          {},
          ...order.map((at) => ({ fill: answer.classes[at].colour, stroke: answer.classes[at].colour, width: 0.5, points: { show: false }, paths })),
        ],
        hooks: {
          setSelect: [
            (plot) => {
              const { left, width } = plot.select;
              if (width > PULL) chosen.current(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
              plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
            },
          ],
        },
      },
      [times, ...order.map((at) => areas[at])] as uPlot.AlignedData,
      box.current!,
    );
    const step = (event: MouseEvent) => {
      const left = event.clientX - made.over.getBoundingClientRect().left;
      const steps = (made.posToVal(left, "x") - times[0]) / (times[1] - times[0]);
      return Math.max(0, Math.min(times.length - 2, Math.floor(steps)));
    };
    let pressed = 0;
    made.over.addEventListener("mousedown", (event) => (pressed = event.clientX));
    made.over.addEventListener("mousemove", (event) => setAt(step(event)));
    made.over.addEventListener("mouseleave", () => setAt(undefined));
    made.over.addEventListener("click", (event) => {
      const at = step(event);
      if (Math.abs(event.clientX - pressed) <= PULL) chosen.current(times[at], times[at + 1]);
    });
    plot.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: box.current?.clientWidth ?? 300, height: HEIGHT }));
    observer.observe(box.current!);
    return () => {
      observer.disconnect();
      made.destroy();
    };
  }, [series, theme]);

  const key = (event: KeyboardEvent) => {
    const move = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (move !== undefined) {
      const next = at === undefined ? (move > 0 ? 0 : last) : Math.max(0, Math.min(last, at + move));
      setBegun(event.shiftKey ? (begun ?? at ?? next) : undefined);
      setAt(next);
      plot.current?.setCursor({ left: plot.current.valToPos(series.times[next], "x"), top: 0 }, false);
    } else if (event.key === "Enter" && at !== undefined) {
      const [low, high] = [Math.min(at, begun ?? at), Math.max(at, begun ?? at)];
      setBegun(undefined);
      onRange(series.times[low], series.times[high + 1]);
    } else if (event.key === "Escape") {
      setBegun(undefined);
      setAt(undefined);
    } else {
      return;
    }
    event.preventDefault();
  };
  return (
    <figure class="chart">
      <figcaption>
        {label}{" "}
        <output class="quiet" aria-live="polite">
          {at === undefined || at > last ? "threads at a time · click a moment, or pull across a time, to see its stacks" : told(answer, series, at, begun)}
        </output>
      </figcaption>
      <div
        ref={box}
        tabIndex={0}
        role="application"
        aria-roledescription="graph over time"
        aria-label={`${label}. Arrow keys go from step to step, Shift chooses more, Enter shows the stacks.`}
        onKeyDown={key}
        onBlur={() => {
          setAt(undefined);
          setBegun(undefined);
        }}
      />
    </figure>
  );
}

/** What is known of a step. */
function told(answer: Decomposition, { times, threads }: Stacked, at: number, begun?: number): string {
  const span = begun === undefined || begun === at ? moment(times[at] * 1000) : `${moment(times[Math.min(begun, at)] * 1000)} to ${moment(times[Math.max(begun, at) + 1] * 1000)}`;
  const of = threads[at];
  if (!of) return `${span}: nothing is stored`;
  const most = answer.classes
    .map(({ name }, place) => ({ name, threads: of[place] }))
    .filter((one) => one.threads >= 0.005)
    .sort((a, b) => b.threads - a.threads)
    .slice(0, TOLD);
  return `${span}: ${of.reduce((sum, one) => sum + one, 0).toFixed(2)} threads${most.map((one) => ` · ${one.name} ${one.threads.toFixed(2)}`).join("")}`;
}
