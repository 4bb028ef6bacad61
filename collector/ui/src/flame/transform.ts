// Other graphs of the same samples: upside down, of one function, without recursion, by module or package, only those with a frame.

import { hashed, place, ranks, type FrameTable, type Graph, type Tree } from "./graph";

/** Nodes that a graph made here may have; what is lighter than what is there goes to the callers' own weight. */
const MAX_NODES = 400_000;

/** Sets the links to groups apart from those to functions of the same name. */
const GROUP_SEED = 0x5bd1e995;

/** Frames of these kinds are no code: what is shown of a function leaves them out. */
const NO_CODE = new Set(["root", "label", "class", "merged"]);

export const isCode = (kind: string): boolean => !NO_CODE.has(kind);

/** Adds up weights of paths. */
class Builder {
  private parent: number[] = [0];
  private frame: number[];
  private own: number[][];
  private position = new Map<number, number>();

  constructor(
    private readonly frames: FrameTable,
    root: number,
    private readonly sideCount: number,
  ) {
    this.frame = [root];
    this.own = Array.from({ length: sideCount }, () => [0]);
  }

  /** The node of a frame below another; that other itself where there are too many. */
  below(parent: number, frame: number): number {
    const key = parent * this.frames.name.length + frame;
    const known = this.position.get(key);
    if (known !== undefined) return known;
    if (this.parent.length >= MAX_NODES) return parent;
    const node = this.parent.push(parent) - 1;
    this.frame.push(frame);
    for (const side of this.own) side.push(0);
    this.position.set(key, node);
    return node;
  }

  add(node: number, side: number, weight: number): void {
    this.own[side][node] += weight;
  }

  /** Nodes in order: callers first, what has one caller by name. */
  tree(): Tree {
    const count = this.parent.length;
    const first = new Uint32Array(count + 1);
    for (let node = 1; node < count; node++) first[this.parent[node] + 1]++;
    for (let node = 0; node < count; node++) first[node + 1] += first[node];
    const fill = first.slice();
    const called = new Uint32Array(Math.max(0, count - 1));
    for (let node = 1; node < count; node++) called[fill[this.parent[node]]++] = node;
    const { rank } = this.frames;
    const tree: Tree = {
      parent: new Uint32Array(count),
      frame: new Uint32Array(count),
      sides: this.own.map(() => ({ own: new Float64Array(count), total: new Float64Array(count) })),
    };
    const open: [number, number][] = [[0, 0]];
    let at = 0;
    for (let next = open.pop(); next; next = open.pop()) {
      const [node, parent] = next;
      tree.parent[at] = parent;
      tree.frame[at] = this.frame[node];
      this.own.forEach((own, side) => {
        tree.sides[side].own[at] = own[node];
        tree.sides[side].total[at] = own[node];
      });
      const below = called.subarray(first[node], first[node + 1]).sort((a, b) => rank[this.frame[b]] - rank[this.frame[a]]);
      for (const callee of below) open.push([callee, at]);
      at++;
    }
    for (let node = count - 1; node > 0; node--) {
      for (const side of tree.sides) side.total[tree.parent[node]] += side.total[node];
    }
    return tree;
  }

  graph(of: Graph): Graph {
    const samples = of.sides.map((side) => side.samples);
    return place(this.tree(), { frames: this.frames, unit: of.unit, title: of.title, mergedNodes: of.mergedNodes }, samples);
  }

  get sides(): number {
    return this.sideCount;
  }
}

const builder = (graph: Graph) => new Builder(graph.frames, graph.frame[0], graph.sides.length);

/** The same stacks with other frames; a node that is the same as its caller becomes part of it. */
function rebuilt(graph: Graph, frames: FrameTable, root: number, frameOf: (node: number) => number, isSame: (node: number) => boolean): Graph {
  const made = new Builder(frames, root, graph.sides.length);
  const moved = new Uint32Array(graph.parent.length);
  for (let node = 0; node < moved.length; node++) {
    if (node > 0) moved[node] = isSame(node) ? moved[graph.parent[node]] : made.below(moved[graph.parent[node]], frameOf(node));
    graph.sides.forEach((side, at) => made.add(moved[node], at, side.own[node]));
  }
  return made.graph(graph);
}

/** A function that calls itself is one frame. */
export function withoutRecursion(graph: Graph): Graph {
  return rebuilt(
    graph,
    graph.frames,
    graph.frame[0],
    (node) => graph.frame[node],
    (node) => graph.frame[node] === graph.frame[graph.parent[node]],
  );
}

/** Frames of one group that follow each other are one, with the group's name. Those of no group (an empty name) stay. */
export function grouped(graph: Graph, group: readonly string[]): Graph {
  const { frames } = graph;
  const numbers = new Map<string, number>();
  const table: FrameTable = { name: [], file: [], module: [], kind: [], rank: new Uint32Array(), hash: new Uint32Array() };
  const hashes: number[] = [];
  const moved = Uint32Array.from(frames.name, (name, frame) => {
    const isGroup = group[frame] !== "";
    const key = isGroup ? `g${group[frame]}` : `f${frame}`;
    let number = numbers.get(key);
    if (number === undefined) {
      number = table.name.push(isGroup ? group[frame] : name) - 1;
      table.file.push("");
      table.module.push(frames.module[frame]);
      table.kind.push(frames.kind[frame]);
      hashes.push(isGroup ? hashed(GROUP_SEED, group[frame]) : frames.hash[frame]);
      numbers.set(key, number);
    }
    return number;
  });
  table.rank = ranks(table.name);
  table.hash = Uint32Array.from(hashes);
  const frameOf = (node: number) => moved[graph.frame[node]];
  const isSame = (node: number) => graph.parent[node] !== 0 && frameOf(node) === frameOf(graph.parent[node]);
  return rebuilt(graph, table, moved[graph.frame[0]], frameOf, isSame);
}

/** The module that holds each frame's code, by its file's name; that of what is no code is empty. */
export function modules({ kind, module }: FrameTable): string[] {
  return module.map((path, frame) => (isCode(kind[frame]) ? path.replace(/^.*\//, "") || path : ""));
}

/** Only stacks that a frame is in, with all of their frames. */
export function through(graph: Graph, frame: number): Graph {
  const count = graph.parent.length;
  // 1: on the way to it; 2: it, or below it.
  const kept = new Uint8Array(count);
  for (let node = 1; node < count; node++) if (graph.frame[node] === frame || kept[graph.parent[node]] === 2) kept[node] = 2;
  for (let node = count - 1; node > 0; node--) if (kept[node] && !kept[graph.parent[node]]) kept[graph.parent[node]] = 1;
  const made = builder(graph);
  const moved = new Uint32Array(count);
  for (let node = 1; node < count; node++) {
    if (!kept[node]) continue;
    moved[node] = made.below(moved[graph.parent[node]], graph.frame[node]);
    if (kept[node] === 2) graph.sides.forEach((side, at) => made.add(moved[node], at, side.own[node]));
  }
  return made.graph(graph);
}

/** Upside down: what ran or waited first, then who called it. The class that ended a stack stays first. */
export function inverted(graph: Graph): Graph {
  const made = builder(graph);
  // The heaviest first, so that what there is no room for is light.
  const ends: number[] = [];
  for (let node = 1; node < graph.parent.length; node++) if (graph.sides.some((side) => side.own[node] > 0)) ends.push(node);
  const own = (node: number) => graph.sides.reduce((sum, side) => sum + (side.weight ? side.own[node] / side.weight : 0), 0);
  ends.sort((a, b) => own(b) - own(a));
  for (const end of ends) addCallers(made, graph, end, (side) => graph.sides[side].own[end]);
  graph.sides.forEach((side, at) => made.add(0, at, side.own[0]));
  return made.graph(graph);
}

/** Adds the path from a node up to the root. */
function addCallers(made: Builder, graph: Graph, from: number, weight: (side: number) => number): void {
  let node = 0;
  for (let at = from; at !== 0; at = graph.parent[at]) node = made.below(node, graph.frame[at]);
  for (let side = 0; side < made.sides; side++) made.add(node, side, weight(side));
}

/** The outermost nodes of a frame: one that calls itself counts once. */
function outermost(graph: Graph, frame: number): number[] {
  const nodes: number[] = [];
  for (let node = 1; node < graph.parent.length; ) {
    if (graph.frame[node] === frame) {
      nodes.push(node);
      node = graph.end[node];
    } else {
      node++;
    }
  }
  return nodes;
}

/** A function from both sides: who called it, nearest first, and what it called. */
export function sandwich(graph: Graph, frame: number): { callers: Graph; callees: Graph } {
  const callers = new Builder(graph.frames, frame, graph.sides.length);
  const callees = new Builder(graph.frames, frame, graph.sides.length);
  const moved = new Uint32Array(graph.parent.length);
  for (const top of outermost(graph, frame)) {
    let node = 0;
    for (let at = graph.parent[top]; at !== 0; at = graph.parent[at]) node = callers.below(node, graph.frame[at]);
    graph.sides.forEach((side, at) => callers.add(node, at, side.total[top]));
    moved[top] = 0;
    for (let below = top; below < graph.end[top]; below++) {
      if (below !== top) moved[below] = callees.below(moved[graph.parent[below]], graph.frame[below]);
      graph.sides.forEach((side, at) => callees.add(moved[below], at, side.own[below]));
    }
  }
  return { callers: callers.graph(graph), callees: callees.graph(graph) };
}

/** A function of the table. */
export interface FunctionTotals {
  frame: number;
  /** Without what it called, of each side. The class that ended a stack is the function's own time. */
  own: number[];
  /** With what it called; a function that calls itself counts once. */
  total: number[];
}

/** What each function has, in the order of frames. */
export function functions(graph: Graph): FunctionTotals[] {
  const { frames, parent, frame, end } = graph;
  const totals = new Map<number, FunctionTotals>();
  const active = new Uint16Array(frames.name.length);
  const open: number[] = [];
  const entry = (of: number) => {
    let known = totals.get(of);
    if (!known) totals.set(of, (known = { frame: of, own: graph.sides.map(() => 0), total: graph.sides.map(() => 0) }));
    return known;
  };
  for (let node = 1; node < parent.length; node++) {
    while (open.length && end[open[open.length - 1]] <= node) active[frame[open.pop()!]]--;
    const of = frame[node];
    if (frames.kind[of] === "class") {
      const owner = frame[parent[node]];
      if (isCode(frames.kind[owner])) graph.sides.forEach((side, at) => (entry(owner).own[at] += side.own[node]));
    } else if (isCode(frames.kind[of])) {
      const sums = entry(of);
      graph.sides.forEach((side, at) => {
        sums.own[at] += side.own[node];
        if (active[of] === 0) sums.total[at] += side.total[node];
      });
    }
    active[of]++;
    open.push(node);
  }
  return [...totals.values()];
}
