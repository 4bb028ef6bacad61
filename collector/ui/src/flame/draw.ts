// Draws a flame graph on a canvas: rows of boxes, so that the work grows with what can be seen and not with the nodes.

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

/** The pixels of each canvas, kept from one drawing to the next. */
const kept = new WeakMap<CanvasRenderingContext2D, ImageData>();

function pixelsOf(context: CanvasRenderingContext2D): ImageData {
  const { width, height } = context.canvas;
  const known = kept.get(context);
  if (known?.width === width && known.height === height) return known;
  const made = context.createImageData(width, height);
  kept.set(context, made);
  return made;
}

/** A colour as a pixel has it, over another where it is not all of it. */
function pixel(context: CanvasRenderingContext2D, colour: string, part = 1, over = colour): number {
  const bytes = (text: string) => {
    // The canvas says every opaque colour as #rrggbb.
    context.fillStyle = text;
    const number = Number.parseInt(String(context.fillStyle).slice(1), 16);
    return [number >> 16, (number >> 8) & 255, number & 255];
  };
  const below = bytes(over);
  const mixed = bytes(colour).map((byte, at) => Math.round(byte * part + below[at] * (1 - part)));
  return new Uint32Array(Uint8Array.of(...mixed, 255).buffer)[0];
}

/** Parts of their colours that are left of frames that a search does not match, and of what is too narrow beside them. */
const DIM = 0.22;
const DIM_REST = 0.3;

/**
 * Draws the graph. There are thousands of boxes a few pixels wide, and a canvas takes long for each: so rows are made of pixels here, which a
 * canvas takes at once, and it only writes the names. Boxes begin and end on whole pixels of the screen.
 */
export function draw(context: CanvasRenderingContext2D, graph: Graph, look: Look, width: number, height: number): void {
  const { colouring, matches, zoom } = look;
  const image = pixelsOf(context);
  const words = new Uint32Array(image.data.buffer);
  const density = context.getTransform().a;
  const background = pixel(context, look.background);
  const plain = colouring.colours.map((colour) => pixel(context, colour));
  const dim = matches ? colouring.colours.map((colour) => pixel(context, colour, DIM, look.background)) : plain;
  const rest = pixel(context, look.rest, matches ? DIM_REST : 1, look.background);
  const rows = rowCount(graph, zoom);
  const scale = graph.width[zoom] > 0 ? width / graph.width[zoom] : 0;
  const left = graph.start[zoom];
  // A gap parts neighbours, where there is room for one.
  const gap = Math.max(1, Math.round(0.6 * density));
  const line = new Uint32Array(image.width);
  const texts: number[] = [];
  const take = (node: number, x: number, y: number, until: number) => {
    const isDim = matches !== undefined && !matches[graph.frame[node]];
    const begin = Math.round(x * density);
    const end = Math.max(begin + 1, Math.round(until * density));
    line.fill((isDim ? dim : plain)[colouring.of[node]], begin, end - begin > 3 * density ? end - gap : end);
    if (until - x >= MIN_TEXT) texts.push(node, x, y, until - x);
  };
  // Each row has its own lines below; where they leave room, there is nothing.
  if (rows * ROW < height) words.fill(background);
  for (let depth = 0; depth < rows; depth++) {
    const y = rowTop(depth, rows, height, look);
    if (y + ROW <= 0 || y >= height) continue;
    line.fill(background);
    if (depth <= graph.depth[zoom]) {
      let node = zoom;
      while (graph.depth[node] > depth) node = graph.parent[node];
      take(node, 0, y, width);
    } else {
      let at = graph.rowStart[depth];
      const until = graph.rowStart[depth + 1];
      if (zoom !== 0) at = lowerBound(graph.rows, at, until, zoom);
      while (at < until) {
        const node = graph.rows[at];
        if (node >= graph.end[zoom]) break;
        const x = (graph.start[node] - left) * scale;
        const end = x + graph.width[node] * scale;
        if (end - x >= MIN_BOX) {
          take(node, x, y, end);
          at++;
          continue;
        }
        // What else begins on this pixel is not looked at one by one: only the last of it can be wide.
        const begin = Math.floor(x * density);
        const next = firstFrom(graph, at + 1, until, left + (begin + 1) / density / scale);
        line.fill(rest, begin, begin + 1);
        const last = graph.rows[next - 1];
        at = next - 1 > at && graph.width[last] * scale >= MIN_BOX ? next - 1 : next;
      }
    }
    const [top, bottom, next] = [y, y + ROW - 1, y + ROW].map((at) => Math.max(0, Math.min(image.height, Math.round(at * density))));
    for (let row = top; row < bottom; row++) words.set(line, row * image.width);
    words.fill(background, bottom * image.width, next * image.width);
  }
  context.putImageData(image, 0, 0);
  context.font = FONT;
  context.textBaseline = "middle";
  if (!character) character = context.measureText("mmmmmmmmmm").width / 10;
  write(context, graph, look, texts);
  for (const [node, thickness] of [[look.hovered, 1], [look.selected, 2]] as const) {
    if (node !== undefined) outline(context, graph, look, node, thickness, rows, width, height);
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

/** The first position in a row, of those given, whose node begins at a place or behind it: mostly a near one. */
function firstFrom(graph: Graph, from: number, until: number, place: number): number {
  const { rows, start } = graph;
  let low = from;
  let step = 1;
  while (low + step <= until && start[rows[low + step - 1]] < place) {
    low += step;
    step *= 2;
  }
  let high = Math.min(until, low + step - 1);
  while (low < high) {
    const middle = (low + high) >> 1;
    if (start[rows[middle]] < place) low = middle + 1;
    else high = middle;
  }
  return low;
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
