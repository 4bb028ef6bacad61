// A flame graph as the page has it: columns of nodes, callers before what they call, each followed by all that it called. The API's answer is
// read here and nowhere else.

import type { Change, Subject } from "../api/types";

/** The answer of /flamegraph. */
export interface FlameAnswer extends Subject {
  strings: string[];
  kinds: string[];
  frames: { name: number[]; file: number[]; module: number[]; kind: number[] };
  nodes: { parent: number[]; frame: number[] };
  sides: { samples: number; weight: number; self: number[]; total: number[] }[];
  merged_nodes: number;
}

/** The answer of /diff. */
export interface DiffAnswer {
  before: Subject;
  flame: FlameAnswer;
  functions: Change[];
  left_out: number;
}

/** What nodes are of; the same for every graph that is made of one answer. */
export interface FrameTable {
  name: string[];
  file: string[];
  module: string[];
  kind: string[];
  /** The place of each name in the order of names. */
  rank: Uint32Array;
  /** A number that depends on what the frame is and not on the answer that it is in. */
  hash: Uint32Array;
}

/** One measurement. */
export interface Side {
  samples: number;
  weight: number;
  own: Float64Array;
  total: Float64Array;
}

/** Nodes, without their places. */
export interface Tree {
  parent: Uint32Array;
  frame: Uint32Array;
  sides: { own: Float64Array; total: Float64Array }[];
}

/** A flame graph with the places of its nodes. */
export interface Graph {
  frames: FrameTable;
  unit: string;
  title: string;
  /** Nodes that the collector merged into lighter ones. */
  mergedNodes: number;
  parent: Uint32Array;
  frame: Uint32Array;
  /** One, or the one compared with and the one that is compared. */
  sides: Side[];
  /** Width of each node, in shares of the root's. */
  width: Float64Array;
  /** Where each begins, in the same. */
  start: Float64Array;
  depth: Uint16Array;
  /** The node behind the last that this one called. */
  end: Uint32Array;
  /** Nodes by depth, in the order of their places: those of depth d are `rows[rowStart[d]..rowStart[d + 1]]`. */
  rows: Uint32Array;
  rowStart: Uint32Array;
}

/** Reads an answer. */
export function read(answer: FlameAnswer): Graph {
  const text = (positions: number[]) => positions.map((position) => answer.strings[position]);
  const names = text(answer.frames.name);
  const modules = text(answer.frames.module);
  const kinds = answer.frames.kind.map((kind) => answer.kinds[kind]);
  const frames: FrameTable = {
    name: names,
    file: text(answer.frames.file),
    module: modules,
    kind: kinds,
    rank: ranks(names),
    hash: Uint32Array.from(names, (name, at) => hashed(hashed(0x811c9dc5, kinds[at] + "\0" + name), modules[at])),
  };
  const tree: Tree = {
    parent: Uint32Array.from(answer.nodes.parent),
    frame: Uint32Array.from(answer.nodes.frame),
    sides: answer.sides.map((side) => ({ own: Float64Array.from(side.self), total: Float64Array.from(side.total) })),
  };
  const about = { frames, unit: answer.unit, title: answer.title, mergedNodes: answer.merged_nodes };
  return place(tree, about, answer.sides.map((side) => side.samples));
}

/** Gives nodes their places. A node of two sides is as wide as the mean of its shares, so that what is on one side only is seen, too. */
export function place(tree: Tree, about: Pick<Graph, "frames" | "unit" | "title" | "mergedNodes">, samples: number[]): Graph {
  const { parent, frame } = tree;
  const count = parent.length;
  const sides: Side[] = tree.sides.map((side, at) => ({ ...side, samples: samples[at] ?? 0, weight: side.total[0] ?? 0 }));
  const present = sides.filter((side) => side.weight > 0);
  const width = new Float64Array(count);
  for (const side of present) {
    const factor = 1 / side.weight / present.length;
    for (let node = 0; node < count; node++) width[node] += side.total[node] * factor;
  }
  const start = new Float64Array(count);
  const next = new Float64Array(count);
  const depth = new Uint16Array(count);
  const end = new Uint32Array(count);
  let deepest = 0;
  for (let node = 1; node < count; node++) {
    const caller = parent[node];
    depth[node] = depth[caller] + 1;
    if (depth[node] > deepest) deepest = depth[node];
    start[node] = next[caller];
    next[node] = start[node];
    next[caller] += width[node];
  }
  for (let node = count - 1; node >= 0; node--) {
    if (end[node] === 0) end[node] = node + 1;
    if (node > 0 && end[parent[node]] < end[node]) end[parent[node]] = end[node];
  }
  const rowStart = new Uint32Array(deepest + 2);
  for (let node = 0; node < count; node++) rowStart[depth[node] + 1]++;
  for (let row = 1; row < rowStart.length; row++) rowStart[row] += rowStart[row - 1];
  const fill = rowStart.slice();
  const rows = new Uint32Array(count);
  for (let node = 0; node < count; node++) rows[fill[depth[node]]++] = node;
  return { ...about, parent, frame, sides, width, start, depth, end, rows, rowStart };
}

/** The part that a node has of a side, 0 to 1. */
export function share(graph: Graph, node: number, side = graph.sides.length - 1): number {
  const { total, weight } = graph.sides[side];
  return weight > 0 ? total[node] / weight : 0;
}

/** By how much a node's share grew. */
export function growth(graph: Graph, node: number): number {
  return share(graph, node, 1) - share(graph, node, 0);
}

/** A frame that stands for callers that are not known, and says why: the agent's, whatever a function is called. */
const INCOMPLETE = /^\[incomplete: .*\]$/;

/** The part of the last side's weight that is in stacks whose callers are not all known, 0 to 1, and why, the most first. */
export function incomplete(graph: Graph): { share: number; causes: string[] } {
  const { name, kind } = graph.frames;
  const isIncomplete = name.map((text, frame) => kind[frame] !== "label" && INCOMPLETE.test(text));
  if (!isIncomplete.includes(true)) return { share: 0, causes: [] };
  const weights = new Map<string, number>();
  for (let node = 1; node < graph.parent.length; ) {
    const frame = graph.frame[node];
    if (isIncomplete[frame]) weights.set(name[frame], (weights.get(name[frame]) ?? 0) + share(graph, node));
    node = isIncomplete[frame] ? graph.end[node] : node + 1;
  }
  const causes = [...weights].sort((a, b) => b[1] - a[1]).map(([text]) => text.slice("[incomplete: ".length, -1));
  return { share: [...weights.values()].reduce((sum, weight) => sum + weight, 0), causes };
}

/** The nodes from the root to this one. */
export function path(graph: Graph, node: number): number[] {
  const nodes = [node];
  while (nodes[0] !== 0) nodes.unshift(graph.parent[nodes[0]]);
  return nodes;
}

/** What a node is, whatever answer it is in: for links. */
export function pathHash(graph: Graph, node: number): string {
  let hash = 0x811c9dc5;
  for (const at of path(graph, node).slice(1)) hash = mixed(hash, graph.frames.hash[graph.frame[at]]);
  return hash.toString(16).padStart(8, "0");
}

/** The node of that name, in the time of one look at every node. */
export function nodeOfHash(graph: Graph, wanted: string): number | undefined {
  const hashes = new Uint32Array(graph.parent.length);
  hashes[0] = 0x811c9dc5;
  const sought = Number.parseInt(wanted, 16);
  for (let node = 1; node < hashes.length; node++) {
    hashes[node] = mixed(hashes[graph.parent[node]], graph.frames.hash[graph.frame[node]]);
    if (hashes[node] === sought) return node;
  }
  return undefined;
}

/** The widest node of a frame with this name, below another. */
export function widestOf(graph: Graph, name: string, below = 0): number | undefined {
  let widest: number | undefined;
  for (let node = below + 1; node < graph.end[below]; node++) {
    if (graph.frames.name[graph.frame[node]] !== name) continue;
    if (widest === undefined || graph.width[node] > graph.width[widest]) widest = node;
  }
  return widest;
}

/** The place of each name in the order of names. */
export function ranks(names: string[]): Uint32Array {
  const order = Array.from(names.keys()).sort((a, b) => (names[a] < names[b] ? -1 : names[a] > names[b] ? 1 : a - b));
  const rank = new Uint32Array(names.length);
  order.forEach((frame, place) => (rank[frame] = place));
  return rank;
}

/** FNV-1a of a text. */
export function hashed(seed: number, text: string): number {
  let hash = seed;
  for (let at = 0; at < text.length; at++) hash = Math.imul(hash ^ text.charCodeAt(at), 0x01000193);
  return hash >>> 0;
}

function mixed(hash: number, next: number): number {
  let sum = Math.imul(hash ^ next, 0x01000193);
  sum ^= sum >>> 15;
  return Math.imul(sum, 0x2c1b3c6d) >>> 0;
}
