// How much there is of something, by two things: a cell for each, the darker the more. A run of cells can be chosen where that means something.

import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { useWidth } from "../parts/width";
import { colour, useTheme } from "../theme";

/** A cell: its column, and its row from below. */
export type Cell = readonly [column: number, row: number];

interface Props {
  /** Of each column its cells, from below; a column of which nothing is known is empty. */
  columns: readonly (readonly number[])[];
  rows: number;
  label: string;
  height: number;
  /** What a cell is of and what it says. */
  told: (cell: Cell, value: number | undefined) => string;
  /** Texts beside the lowest and the highest row, and below the first and the last column. */
  axes: { low: string; high: string; first: string; last: string };
  /** The run that is chosen, and what chooses one: cells in the order of columns, and in these of rows. */
  chosen?: readonly [Cell, Cell];
  onChoose?: (from: Cell, to: Cell) => void;
}

/** A little is seen beside a lot. */
const shade = (value: number, most: number) => (value > 0 ? 0.08 + 0.92 * Math.sqrt(value / most) : 0);

export function Heat({ columns, rows, label, height, told, axes, chosen, onChoose }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  const [box, width] = useWidth<HTMLDivElement>();
  const [pointed, setPointed] = useState<Cell>();
  const [begun, setBegun] = useState<Cell>();
  const order = (cell: Cell) => cell[0] * rows + cell[1];
  const run = begun && pointed ? ([begun, pointed] as const) : chosen;
  const [low, high] = run ? [Math.min(order(run[0]), order(run[1])), Math.max(order(run[0]), order(run[1]))] : [-1, -2];

  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context || !width || !columns.length) return;
    const density = devicePixelRatio || 1;
    context.canvas.width = Math.round(width * density);
    context.canvas.height = Math.round(height * density);
    context.setTransform(density, 0, 0, density, 0, 0);
    const [wide, tall] = [width / columns.length, height / rows];
    const most = columns.reduce((most, column) => column.reduce((most, value) => Math.max(most, value), most), 0) || 1;
    const [ink, none, mark] = [colour("heat"), colour("line"), colour("chosen")];
    // Whole pixels, so that no seams are seen.
    const edge = (at: number) => Math.round(at * density) / density;
    columns.forEach((column, x) => {
      const [left, right] = [edge(x * wide), edge((x + 1) * wide)];
      if (column.length === 0) {
        context.globalAlpha = 0.5;
        context.fillStyle = none;
        context.fillRect(left, 0, right - left, height);
      }
      column.forEach((value, y) => {
        const [top, bottom] = [edge(height - (y + 1) * tall), edge(height - y * tall)];
        const isChosen = x * rows + y >= low && x * rows + y <= high;
        if (isChosen) {
          context.globalAlpha = 0.35;
          context.fillStyle = mark;
          context.fillRect(left, top, right - left, bottom - top);
        }
        context.globalAlpha = shade(value, most);
        context.fillStyle = isChosen ? mark : ink;
        context.fillRect(left, top, right - left, bottom - top);
      });
    });
    context.globalAlpha = 1;
    if (pointed) {
      context.strokeStyle = colour("ink");
      context.strokeRect(pointed[0] * wide + 0.5, height - (pointed[1] + 1) * tall + 0.5, Math.max(2, wide - 1), Math.max(2, tall - 1));
    }
  }, [columns, rows, width, height, theme, pointed, low, high]);

  const at = (event: PointerEvent): Cell => {
    const box = canvas.current!.getBoundingClientRect();
    const within = (part: number, count: number) => Math.max(0, Math.min(count - 1, Math.floor(part * count)));
    return [within((event.clientX - box.left) / box.width, columns.length), rows - 1 - within((event.clientY - box.top) / box.height, rows)];
  };
  const choose = (from: Cell, to: Cell) => (order(from) <= order(to) ? onChoose?.(from, to) : onChoose?.(to, from));
  const key = (event: KeyboardEvent) => {
    const now = pointed ?? ([0, 0] as const);
    const steps: Record<string, Cell> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    const step = steps[event.key];
    if (step) {
      if (onChoose && event.shiftKey && !begun) setBegun(now);
      const next: Cell = [Math.max(0, Math.min(columns.length - 1, now[0] + step[0])), Math.max(0, Math.min(rows - 1, now[1] + step[1]))];
      setPointed(pointed ? next : now);
    } else if (event.key === "Enter" && onChoose) {
      choose(begun ?? now, now);
      setBegun(undefined);
    } else if (event.key === "Escape") {
      setBegun(undefined);
      setPointed(undefined);
    } else {
      return;
    }
    event.preventDefault();
  };
  return (
    <figure class="heat">
      <figcaption>
        {label}{" "}
        <output class="quiet" aria-live="polite">
          {pointed ? told(pointed, columns[pointed[0]]?.[pointed[1]]) : onChoose ? "pull across a burst to see its stacks; with keys: arrows, Shift and arrows, Enter" : ""}
        </output>
      </figcaption>
      <div class="heat-box">
        <span class="quiet number">{axes.high}</span>
        <span class="quiet number low">{axes.low}</span>
        <div class="heat-plot" ref={box}>
          <canvas
            ref={canvas}
            style={{ width: `${width}px`, height: `${height}px` }}
            tabIndex={0}
            role="application"
            aria-roledescription="heatmap"
            aria-label={`${label}. Arrow keys go from cell to cell${onChoose ? ", Shift chooses more, Enter shows its stacks" : ""}.`}
            onPointerDown={(event) => {
              if (!onChoose || event.button !== 0) return;
              canvas.current!.setPointerCapture(event.pointerId);
              setBegun(at(event));
              setPointed(at(event));
            }}
            onPointerMove={(event) => setPointed(at(event))}
            onPointerUp={(event) => {
              if (begun) choose(begun, at(event));
              setBegun(undefined);
            }}
            onPointerLeave={() => !begun && setPointed(undefined)}
            onKeyDown={key}
            onBlur={() => {
              setPointed(undefined);
              setBegun(undefined);
            }}
          />
        </div>
        <span class="quiet first">{axes.first}</span>
        <span class="quiet last">{axes.last}</span>
      </div>
    </figure>
  );
}
