// What a node's colour says: the class of its time, what code it is, its module or package, or by how much it grew.

import { CLASSES, classOfFrame } from "../classes";
import { growth, type Graph } from "./graph";
import { packages } from "./packages";
import { modules } from "./transform";

export type ColourBy = "class" | "kind" | "module" | "package" | "diff";

/** Colours by number, and each node's number. */
export interface Colouring {
  colours: string[];
  of: Uint8Array;
  /** What is told of them. */
  legend: { colour: string; name: string }[];
}

/** Nodes of which no class has this part are of several. As in the pictures. */
const DOMINANT = 0.8;
const SEVERAL = "#ced0de";

/** Of what code it is, as in the pictures. Black text is readable on all of them. */
const KINDS: [kind: string, colour: string, name: string][] = [
  ["user", "#f0a07e", "program"],
  ["kernel", "#8ab2de", "kernel"],
  ["jit", "#8fc691", "JIT"],
  ["interpreter", "#c9a3d6", "interpreter"],
  ["no-symbol", "#c8c8c8", "no symbol"],
  ["label", "#d6d8e4", "label"],
  ["merged", "#e2e2e2", "lighter frames"],
];

/** Hues that differ for every eye, for names that have no order. */
const GROUPS = [
  "#f0a07e", "#8ab2de", "#8fc691", "#f2cf73", "#c9a3d6", "#7fc8c4", "#e39bb4", "#b5c46f", "#a9b3ee", "#d8b48f", "#93d3ee", "#c8c8c8",
];

/** From shrank to grew: blue over grey to orange, for no eye has trouble with these. */
const SHRANK = [32, 120, 180];
const SAME = [214, 214, 210];
const GREW = [224, 104, 12];
const STEPS = 12;
/** A change of this part of the whole has the strongest colour. */
const STRONGEST = 0.1;

export function colouring(graph: Graph, by: ColourBy): Colouring {
  switch (by) {
    case "class":
      return byClass(graph);
    case "kind":
      return byKind(graph);
    case "module":
      return byGroup(graph, modules(graph.frames));
    case "package":
      return byGroup(graph, packages(graph.frames));
    case "diff":
      return byGrowth(graph);
  }
}

function byClass(graph: Graph): Colouring {
  const { frames, frame, parent } = graph;
  const classOf = Int8Array.from(frames.name, (name, at) => {
    const known = frames.kind[at] === "class" ? classOfFrame(name) : undefined;
    return known ? CLASSES.indexOf(known) : -1;
  });
  const count = parent.length;
  const side = graph.sides[graph.sides.length - 1];
  // Weight by class: own where the class ends a stack, of all below where it begins one.
  const present = [...new Set(classOf)].filter((at) => at >= 0).sort((a, b) => a - b);
  const column = new Int8Array(CLASSES.length).fill(-1);
  present.forEach((at, place) => (column[at] = place));
  const weights = new Float64Array(count * present.length);
  const above = new Int8Array(count).fill(-1);
  for (let node = 1; node < count; node++) {
    const own = classOf[frame[node]];
    above[node] = own >= 0 ? own : above[parent[node]];
    if (above[node] >= 0) weights[node * present.length + column[above[node]]] += side.own[node];
  }
  for (let node = count - 1; node > 0; node--) {
    const from = node * present.length;
    const to = parent[node] * present.length;
    for (let at = 0; at < present.length; at++) weights[to + at] += weights[from + at];
  }
  const several = present.length;
  const of = new Uint8Array(count).fill(several);
  for (let node = 0; node < count; node++) {
    for (let at = 0; at < present.length; at++) {
      if (weights[node * present.length + at] >= DOMINANT * side.total[node] && side.total[node] > 0) of[node] = at;
    }
    const own = classOf[frame[node]];
    if (own >= 0) of[node] = column[own];
  }
  const colours = [...present.map((at) => CLASSES[at].colour), SEVERAL];
  const legend = present
    .map((at, place) => ({ colour: CLASSES[at].colour, name: CLASSES[at].name, weight: weights[place] }))
    .filter((entry) => entry.weight >= 0.001 * side.weight)
    .map(({ colour, name }) => ({ colour, name }));
  return { colours, of, legend: [...legend, { colour: SEVERAL, name: "several" }] };
}

function byKind(graph: Graph): Colouring {
  const numbers = new Map(KINDS.map(([kind], at) => [kind, at]));
  const colours = [...KINDS.map(([, colour]) => colour), SEVERAL];
  const ofFrame = Uint8Array.from(graph.frames.kind, (kind) => numbers.get(kind) ?? KINDS.length);
  const seen = new Set(ofFrame);
  const legend = KINDS.filter((_, at) => seen.has(at)).map(([, colour, name]) => ({ colour, name }));
  return { colours, of: Uint8Array.from(graph.frame, (frame) => ofFrame[frame]), legend };
}

function byGroup(graph: Graph, group: readonly string[]): Colouring {
  const weight = new Map<string, number>();
  const own = graph.sides[graph.sides.length - 1].own;
  // Where a class ends each stack, its time is that of the function above it.
  graph.frame.forEach((frame, node) => {
    const name = group[frame] || group[graph.frame[graph.parent[node]]];
    weight.set(name, (weight.get(name) ?? 0) + own[node]);
  });
  weight.delete("");
  const order = [...weight.keys()].sort((a, b) => weight.get(b)! - weight.get(a)!);
  const numbers = new Map(order.map((name, at) => [name, Math.min(at, GROUPS.length - 1)]));
  const ofFrame = Uint8Array.from(group, (name) => (name === "" ? GROUPS.length : (numbers.get(name) ?? GROUPS.length - 1)));
  const legend = order.slice(0, GROUPS.length - 1).map((name, at) => ({ colour: GROUPS[at], name }));
  if (order.length >= GROUPS.length) legend.push({ colour: GROUPS[GROUPS.length - 1], name: "others" });
  return { colours: [...GROUPS, SEVERAL], of: Uint8Array.from(graph.frame, (frame) => ofFrame[frame]), legend };
}

function byGrowth(graph: Graph): Colouring {
  const colours = Array.from({ length: 2 * STEPS + 1 }, (_, at) => {
    const strength = (at - STEPS) / STEPS;
    const end = strength < 0 ? SHRANK : GREW;
    const part = Math.abs(strength) * 0.85;
    return `rgb(${SAME.map((from, c) => Math.round(from + (end[c] - from) * part)).join(",")})`;
  });
  const of = Uint8Array.from(graph.parent, (_, node) => {
    const change = growth(graph, node);
    // The root of the part, for small changes are to be seen and large ones told apart.
    const strength = Math.sign(change) * Math.min(1, Math.sqrt(Math.abs(change) / STRONGEST));
    return Math.round(strength * STEPS) + STEPS;
  });
  const legend = [
    { colour: colours[0], name: "shrank" },
    { colour: colours[STEPS], name: "same" },
    { colour: colours[2 * STEPS], name: "grew" },
  ];
  return { colours, of, legend };
}
