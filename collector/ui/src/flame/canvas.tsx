// The flame graph as people use it: a canvas that only draws what is in view, with pointer, keys, a tip and a menu.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { useHeld } from "../held";
import { Legend } from "../parts/legend";
import { useWidth } from "../parts/width";
import { colour, useTheme } from "../theme";
import { percent, points, weight } from "../units";
import { colouring, type ColourBy } from "./colours";
import { draw, nodeAt, ROW, rowCount, rowTop, type Look } from "./draw";
import { growth, path, share, type Graph } from "./graph";
import { Menu, type MenuAt } from "./menu";
import type { Found } from "./search";

export interface FlameProps {
  graph: Graph;
  /** What it is of, for those who do not see it. */
  label: string;
  colourBy: ColourBy;
  isFlame: boolean;
  found?: Found;
  /** The node that has the whole width. */
  zoom: number;
  onZoom: (node: number) => void;
  /** Shows a function from both sides. */
  onSandwich?: (frame: number) => void;
  /** Searches for a function. */
  onSearch?: (name: string) => void;
  /** Leaves only stacks with a function. */
  onOnly?: (frame: number) => void;
  /** The most rows that are in view at once; more are scrolled to. */
  maxRows?: number;
}

/** Callers of the node that is zoomed to that are in view, where not all can be. */
const CALLERS = 6;

/** Draws, and tells the browser's clock how long that took. */
function measuredDraw(...drawn: Parameters<typeof draw>): void {
  const start = performance.now();
  draw(...drawn);
  performance.clearMeasures("flame.draw");
  performance.measure("flame.draw", { start, end: performance.now() });
}

export function Flame(props: FlameProps) {
  const { graph, zoom, isFlame, found, onZoom } = props;
  const theme = useTheme();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [scroller, width] = useWidth<HTMLDivElement>();
  const [scrolled, setScrolled] = useState(0);
  const [hovered, setHovered] = useState<{ node: number; x: number; y: number }>();
  const [selected, setSelected] = useHeld<number | undefined>(graph, undefined);
  const [menu, setMenu] = useState<MenuAt>();
  const colours = useMemo(() => colouring(graph, props.colourBy), [graph, props.colourBy]);
  const rows = useMemo(() => rowCount(graph, zoom), [graph, zoom]);
  const height = Math.min(rows, props.maxRows ?? 36) * ROW;

  // What is seen first is the root, which is below in a flame.
  useLayoutEffect(() => {
    const box = scroller.current!;
    // Some of the callers stay in view.
    const above = Math.max(0, graph.depth[zoom] - CALLERS) * ROW;
    box.scrollTop = isFlame ? box.scrollHeight - height - above : above;
    setScrolled(box.scrollTop);
    setHovered(undefined);
  }, [graph, isFlame, rows, zoom]);

  const look: Look = {
    zoom,
    scrolled,
    isFlame,
    colouring: colours,
    matches: found?.frames,
    hovered: hovered?.node,
    selected,
    background: colour("plot"),
    text: colour("ink"),
    rest: colour("rest"),
    outline: colour("ink"),
  };
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d", { alpha: false });
    if (!context || !width) return;
    const density = devicePixelRatio || 1;
    const [wide, high] = [Math.round(width * density), Math.round(height * density)];
    if (context.canvas.width !== wide || context.canvas.height !== high) {
      context.canvas.width = wide;
      context.canvas.height = high;
    }
    context.setTransform(density, 0, 0, density, 0, 0);
    // What the state has may be of the graph before.
    measuredDraw(context, graph, { ...look, scrolled: scroller.current!.scrollTop }, width, height);
  }, [graph, colours, zoom, scrolled, isFlame, found, hovered?.node, selected, width, height, theme]);

  const at = (event: MouseEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return nodeAt(graph, look, event.clientX - box.left, event.clientY - box.top, width, height);
  };
  const hover = (event: PointerEvent) => {
    const node = at(event);
    setHovered(node === undefined ? undefined : { node, x: event.clientX, y: event.clientY });
  };
  const select = (node: number) => {
    setSelected(node);
    const box = scroller.current!;
    const top = rowTop(graph.depth[node], rows, height, { isFlame, scrolled: 0 });
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + ROW > box.scrollTop + height) box.scrollTop = top + ROW - height;
  };
  const key = (event: KeyboardEvent) => {
    const now = selected ?? zoom;
    const moves: Record<string, () => number | undefined> = {
      [isFlame ? "ArrowUp" : "ArrowDown"]: () => widestBelow(graph, now),
      [isFlame ? "ArrowDown" : "ArrowUp"]: () => graph.parent[now],
      ArrowRight: () => beside(graph, now, 1),
      ArrowLeft: () => beside(graph, now, -1),
      Home: () => zoom,
    };
    const move = moves[event.key];
    if (move) {
      const next = move();
      if (next !== undefined) select(next);
    } else if (event.key === "Enter" || event.key === " ") {
      onZoom(now);
    } else if (event.key === "Escape" || event.key === "Backspace") {
      onZoom(event.key === "Escape" ? 0 : graph.parent[zoom]);
    } else if (event.key === "ContextMenu" || (event.key === "F10" && event.shiftKey)) {
      const box = canvas.current!.getBoundingClientRect();
      setMenu({ node: now, x: box.left + 40, y: Math.max(box.top, 0) + 40 });
    } else {
      return;
    }
    event.preventDefault();
  };
  const told = selected ?? undefined;
  return (
    <div class="flame">
      <div
        class="flame-scroll"
        ref={scroller}
        style={{ height: `${height}px` }}
        onScroll={(event) => setScrolled((event.target as HTMLElement).scrollTop)}
      >
        <div style={{ height: `${rows * ROW}px` }}>
          <canvas
            ref={canvas}
            style={{ width: `${width}px`, height: `${height}px` }}
            tabIndex={0}
            role="application"
            aria-roledescription="flame graph"
            aria-label={`${props.label}. Arrow keys go from frame to frame, Enter zooms in, Escape out.`}
            onPointerMove={hover}
            onPointerLeave={() => setHovered(undefined)}
            onClick={(event) => {
              const node = at(event);
              if (node !== undefined) onZoom(node);
              setSelected(undefined);
            }}
            onContextMenu={(event) => {
              const node = at(event);
              if (node === undefined) return;
              event.preventDefault();
              setMenu({ node, x: event.clientX, y: event.clientY });
            }}
            onKeyDown={key}
            onBlur={() => setSelected(undefined)}
          />
        </div>
      </div>
      <Legend entries={colours.legend} label="Colours" />
      <div class="visually-hidden" aria-live="polite">
        {told === undefined ? "" : described(graph, told)}
      </div>
      {hovered && !menu && <Tip graph={graph} {...hovered} />}
      {menu && <Menu at={menu} onClose={() => setMenu(undefined)} {...props} />}
    </div>
  );
}

function widestBelow(graph: Graph, node: number): number | undefined {
  let widest: number | undefined;
  for (let below = node + 1; below < graph.end[node]; below = graph.end[below]) {
    if (widest === undefined || graph.width[below] > graph.width[widest]) widest = below;
  }
  return widest;
}

/** The next node of the same row, of whatever caller. */
function beside(graph: Graph, node: number, step: number): number | undefined {
  const depth = graph.depth[node];
  const row = graph.rows.subarray(graph.rowStart[depth], graph.rowStart[depth + 1]);
  return row[row.indexOf(node) + step];
}

function described(graph: Graph, node: number): string {
  const name = graph.frames.name[graph.frame[node]];
  const side = graph.sides[graph.sides.length - 1];
  const change = graph.sides.length > 1 ? `, ${points(growth(graph, node))}` : "";
  return `${name}: ${percent(share(graph, node))}, ${weight(side.total[node], graph.unit)}${change}; depth ${graph.depth[node]}`;
}

function Tip({ graph, node, x, y }: { graph: Graph; node: number; x: number; y: number }) {
  const box = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    const { offsetWidth, offsetHeight } = box.current!;
    box.current!.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - offsetWidth - 8))}px`;
    box.current!.style.top = `${y + 18 + offsetHeight > innerHeight ? y - offsetHeight - 10 : y + 18}px`;
  });
  const { frames, frame, sides } = graph;
  const callerShare = node === 0 ? 1 : graph.width[graph.parent[node]] > 0 ? graph.width[node] / graph.width[graph.parent[node]] : 0;
  return (
    <div class="tip" ref={box} role="presentation">
      <b class="code">{frames.name[frame[node]]}</b>
      {frames.module[frame[node]] && <div class="code quiet">{frames.module[frame[node]]}</div>}
      {frames.file[frame[node]] && <div class="code quiet">{frames.file[frame[node]]}</div>}
      <table>
        <tbody>
          {sides.map((side, at) => (
            <tr key={at}>
              <td>{sides.length > 1 ? (at === 0 ? "before" : "after") : "total"}</td>
              <td class="number">{weight(side.total[node], graph.unit)}</td>
              <td class="number">{percent(share(graph, node, at))}</td>
              <td>self</td>
              <td class="number">{weight(side.own[node], graph.unit)}</td>
            </tr>
          ))}
        </tbody>
      </table>
      {sides.length > 1 ? <div>{points(growth(graph, node))} of all</div> : <div class="quiet">{percent(callerShare)} of its caller · depth {path(graph, node).length - 1}</div>}
    </div>
  );
}
