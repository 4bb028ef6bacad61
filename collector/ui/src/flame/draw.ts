// Draws a flame graph on a canvas: rows of boxes, colour by colour, so that the work grows with what can be seen and not with the nodes.

import type { Colouring } from "./colours";
import type { Graph } from "./graph";

/** Height of a row, pixels. */
export const ROW = 18;
/** Narrower boxes are drawn together, without colours of their own. */
const MIN_BOX = 1.2;
/** Narrower ones have no text. */
const MIN_TEXT = 26;
const PAD = 4;

export interface Look {
  /** The node that has the whole width. */
  zoom: number;
  /** Rows that are scrolled away. */
  scrolled: number;
  /** Whether the root is below. */
  isFlame: boolean;
  colouring: Colouring;
  /** Frames that match a search; the others are dimmed. */
  matches?: Uint8Array;
  /** Nodes that stand out: where the pointer is, where the keyboard is. */
  hovered?: number;
  selected?: number;
  background: string;
  text: string;
  /** What is too narrow, together. */
  rest: string;
  outline: string;
}

/** Width of a character of the canvas's font, pixels. */
let character = 0;
const FONT = "12px ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace";

/** Nodes that are a smaller part of the width than this have no rows of their own: nobody sees them before zooming in. */
const SEEN = 1 / 2000;

/** How many rows there are: the node that is zoomed to, its callers, and what it called. */
export function rowCount(graph: Graph, zoom: number): number {
  let deepest = graph.depth[zoom];
  const least = graph.width[zoom] * SEEN;
  for (let node = zoom; node < graph.end[zoom]; node++) {
    if (graph.depth[node] > deepest && graph.width[node] >= least) deepest = graph.depth[node];
  }
  return deepest + 1;
}

/** Where a row is, pixels from the canvas's upper edge. */
export function rowTop(depth: number, rows: number, height: number, look: Pick<Look, "isFlame" | "scrolled">): number {
  const full = Math.max(height, rows * ROW);
  const top = look.isFlame ? full - (depth + 1) * ROW : depth * ROW;
  return top - look.scrolled;
}

/** The node at a place of the canvas. */
export function nodeAt(graph: Graph, look: Pick<Look, "isFlame" | "scrolled" | "zoom">, x: number, y: number, width: number, height: number): number | undefined {
  const rows = rowCount(graph, look.zoom);
  const full = Math.max(height, rows * ROW);
  const fromTop = y + look.scrolled;
  const depth = Math.floor((look.isFlame ? full - fromTop : fromTop) / ROW);
  if (depth < 0 || depth >= rows) return undefined;
  if (depth <= graph.depth[look.zoom]) {
    let node = look.zoom;
    while (graph.depth[node] > depth) node = graph.parent[node];
    return node;
  }
  const at = graph.start[look.zoom] + (x / width) * graph.width[look.zoom];
  const last = lastBefore(graph, depth, at);
  if (last === undefined || last < look.zoom || last >= graph.end[look.zoom]) return undefined;
  return at < graph.start[last] + graph.width[last] ? last : undefined;
}

/** The last node of a row that begins at or before a place. */
function lastBefore(graph: Graph, depth: number, place: number): number | undefined {
  let low = graph.rowStart[depth];
  let high = graph.rowStart[depth + 1];
  const first = low;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (graph.start[graph.rows[middle]] <= place) low = middle + 1;
    else high = middle;
  }
  return low > first ? graph.rows[low - 1] : undefined;
}

export function draw(context: CanvasRenderingContext2D, graph: Graph, look: Look, width: number, height: number): void {
  const { colouring, matches, zoom } = look;
  context.fillStyle = look.background;
  context.fillRect(0, 0, width, height);
  context.font = FONT;
  context.textBaseline = "middle";
  if (!character) character = context.measureText("mmmmmmmmmm").width / 10;
  const rows = rowCount(graph, zoom);
  const scale = graph.width[zoom] > 0 ? width / graph.width[zoom] : 0;
  const left = graph.start[zoom];

  // Boxes by colour, x y width each; behind those that match are those that do not.
  const boxes: number[][] = Array.from({ length: colouring.colours.length * 2 }, () => []);
  const rest: number[] = [];
  const texts: number[] = [];
  const take = (node: number, x: number, y: number, boxWidth: number) => {
    const isDim = matches !== undefined && !matches[graph.frame[node]];
    boxes[colouring.of[node] * 2 + (isDim ? 1 : 0)].push(x, y, boxWidth);
    if (boxWidth >= MIN_TEXT) texts.push(node, x, y, boxWidth);
  };
  for (let depth = 0; depth < rows; depth++) {
    const y = rowTop(depth, rows, height, look);
    if (y + ROW <= 0 || y >= height) continue;
    if (depth <= graph.depth[zoom]) {
      let node = zoom;
      while (graph.depth[node] > depth) node = graph.parent[node];
      take(node, 0, y, width);
      continue;
    }
    let from = graph.rowStart[depth];
    const until = graph.rowStart[depth + 1];
    if (zoom !== 0) from = lowerBound(graph.rows, from, until, zoom);
    let restFrom = -1;
    let restUntil = -1;
    for (let at = from; at < until; at++) {
      const node = graph.rows[at];
      if (node >= graph.end[zoom]) break;
      const x = (graph.start[node] - left) * scale;
      const boxWidth = graph.width[node] * scale;
      if (boxWidth >= MIN_BOX) {
        take(node, x, y, boxWidth);
        continue;
      }
      if (x > restUntil + 1) {
        if (restUntil > restFrom) rest.push(restFrom, y, restUntil - restFrom);
        restFrom = x;
      }
      restUntil = x + boxWidth;
    }
    if (restUntil > restFrom && restFrom >= 0) rest.push(restFrom, y, restUntil - restFrom);
  }

  context.fillStyle = look.rest;
  context.globalAlpha = matches ? 0.3 : 1;
  fill(context, rest);
  boxes.forEach((list, at) => {
    if (!list.length) return;
    context.globalAlpha = at % 2 ? 0.22 : 1;
    context.fillStyle = colouring.colours[at >> 1];
    fill(context, list);
  });
  context.globalAlpha = 1;
  write(context, graph, look, texts);
  for (const [node, line] of [[look.hovered, 1], [look.selected, 2]] as const) {
    if (node !== undefined) outline(context, graph, look, node, line, rows, width, height);
  }
}

function fill(context: CanvasRenderingContext2D, list: number[]): void {
  for (let at = 0; at < list.length; at += 3) {
    // A gap parts neighbours, where there is room for one.
    const boxWidth = list[at + 2];
    context.fillRect(list[at], list[at + 1], boxWidth > 3 ? boxWidth - 0.6 : boxWidth, ROW - 1);
  }
}

function write(context: CanvasRenderingContext2D, graph: Graph, look: Look, texts: number[]): void {
  const { name } = graph.frames;
  for (const isDim of look.matches ? [true, false] : [false]) {
    context.fillStyle = isDim ? look.text : "#000";
    context.globalAlpha = isDim ? 0.6 : 1;
    for (let at = 0; at < texts.length; at += 4) {
      const frame = graph.frame[texts[at]];
      if (look.matches && !look.matches[frame] !== isDim) continue;
      const room = Math.floor((texts[at + 3] - 2 * PAD) / character);
      const shown = fitted(name[frame], room);
      if (shown) context.fillText(shown, texts[at + 1] + PAD, texts[at + 2] + ROW / 2);
    }
  }
  context.globalAlpha = 1;
}

/** As much of a name as there is room for: without the namespaces before it, which neighbours have in common, if that is enough. */
export function fitted(name: string, room: number): string {
  if (name.length <= room) return name;
  if (room <= 2) return "";
  const last = withoutNamespaces(name);
  return last.length + 1 <= room ? `…${last}` : `${last.slice(0, room - 1)}…`;
}

/** What follows the last `::` that is not between angle brackets. A closure is told with what it is in. */
function withoutNamespaces(name: string): string {
  let depth = 0;
  let from = 0;
  for (let at = 0; at < name.length - 2; at++) {
    if (name[at] === "<") depth++;
    else if (name[at] === ">") depth--;
    else if (depth <= 0 && name[at] === ":" && name[at + 1] === ":" && name[at + 2] !== "{") from = at + 2;
  }
  return name.slice(from);
}

function outline(context: CanvasRenderingContext2D, graph: Graph, look: Look, node: number, line: number, rows: number, width: number, height: number): void {
  const isCaller = node <= look.zoom && graph.end[node] >= graph.end[look.zoom];
  const scale = graph.width[look.zoom] > 0 ? width / graph.width[look.zoom] : 0;
  if (!isCaller && (node < look.zoom || node >= graph.end[look.zoom])) return;
  const x = isCaller ? 0 : (graph.start[node] - graph.start[look.zoom]) * scale;
  const boxWidth = isCaller ? width : graph.width[node] * scale;
  context.strokeStyle = look.outline;
  context.lineWidth = line;
  context.strokeRect(x + line / 2, rowTop(graph.depth[node], rows, height, look) + line / 2, Math.max(boxWidth - line - 0.6, 1), ROW - 1 - line);
}

function lowerBound(rows: Uint32Array, from: number, until: number, node: number): number {
  let low = from;
  let high = until;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (rows[middle] < node) low = middle + 1;
    else high = middle;
  }
  return low;
}
