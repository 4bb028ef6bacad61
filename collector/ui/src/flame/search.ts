// Finds frames by a regular expression.

import type { Graph } from "./graph";

export interface Found {
  /** Whether each frame matches. */
  frames: Uint8Array;
  /** How many frames do. */
  count: number;
  /** The part of all weight that is in nodes that match or below them, of each side; what is in two of them counts once. */
  shares: number[];
}

/** The expression, without regard to case; what is none is an error in words. */
export function compiled(pattern: string): RegExp | string {
  try {
    return new RegExp(pattern, "iu");
  } catch {
    try {
      return new RegExp(pattern, "i");
    } catch (error) {
      return error instanceof Error ? error.message.replace(/^Invalid regular expression: /, "") : String(error);
    }
  }
}

export function find(graph: Graph, expression: RegExp): Found {
  const { name, module } = graph.frames;
  const frames = Uint8Array.from(name, (text, at) => (expression.test(text) || (module[at] !== "" && expression.test(module[at])) ? 1 : 0));
  const sums = graph.sides.map(() => 0);
  for (let node = 1; node < graph.parent.length; ) {
    if (frames[graph.frame[node]]) {
      graph.sides.forEach((side, at) => (sums[at] += side.total[node]));
      node = graph.end[node];
    } else {
      node++;
    }
  }
  return {
    frames,
    count: frames.reduce((sum, is) => sum + is, 0),
    shares: sums.map((sum, at) => (graph.sides[at].weight > 0 ? sum / graph.sides[at].weight : 0)),
  };
}
