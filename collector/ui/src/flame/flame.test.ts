/// <reference types="node" />
import assert from "node:assert/strict";
import { test } from "node:test";
import { colouring } from "./colours";
import { draw, fitted, nodeAt, ROW } from "./draw";
import { incomplete, nodeOfHash, path, pathHash, read, widestOf, type FlameAnswer, type Graph } from "./graph";
import { compiled, find } from "./search";
import { packageOf, packages } from "./packages";
import { functions, grouped, inverted, modules, sandwich, through, withoutRecursion } from "./transform";

/** An answer of folded stacks, as the collector would give it: `[class]` is a class, `k:` a frame of the kernel. */
function answer(lines: [string, ...number[]][]): FlameAnswer {
  const kinds = ["root", "class", "user", "kernel"];
  const strings = ["", "all"];
  const frames = { name: [1], file: [0], module: [0], kind: [0] };
  const nodes = { parent: [0], frame: [0] };
  const sideCount = lines[0].length - 1;
  const sides = Array.from({ length: sideCount }, () => ({ samples: 0, weight: 0, self: [0], total: [0] }));
  const text = (of: string) => (strings.includes(of) ? strings.indexOf(of) : strings.push(of) - 1);
  const frameOf = (name: string) => {
    const kind = name.startsWith("[") ? 1 : name.startsWith("k:") ? 3 : 2;
    const number = text(name);
    const known = frames.name.indexOf(number);
    if (known >= 0) return known;
    frames.file.push(0);
    frames.module.push(kind === 2 ? text("/usr/bin/app") : kind === 3 ? text("[kernel]") : 0);
    frames.kind.push(kind);
    return frames.name.push(number) - 1;
  };
  // The lines are in order, so that nodes come as the collector sorts them.
  let before: string[] = [];
  let open: number[] = [0];
  for (const [stack, ...weights] of lines) {
    const names = stack.split(";");
    let common = 0;
    while (common < names.length && names[common] === before[common]) common++;
    open = open.slice(0, common + 1);
    for (const name of names.slice(common)) {
      nodes.parent.push(open[open.length - 1]);
      nodes.frame.push(frameOf(name));
      for (const side of sides) {
        side.self.push(0);
        side.total.push(0);
      }
      open.push(nodes.parent.length - 1);
    }
    weights.forEach((weight, at) => {
      sides[at].self[open[open.length - 1]] += weight;
      sides[at].weight += weight;
      sides[at].samples += 1;
      for (const node of open) sides[at].total[node] += weight;
    });
    before = names;
  }
  return { query: "", title: "", unit: "ns", from_unix_ms: 0, until_unix_ms: 1, strings, kinds, frames, nodes, sides, merged_nodes: 0 };
}

/** Folded stacks of a graph. */
function folded(graph: Graph, side = 0): [string, number][] {
  const name = (node: number) => graph.frames.name[graph.frame[node]];
  const lines: [string, number][] = [];
  for (let node = 0; node < graph.parent.length; node++) {
    if (graph.sides[side].own[node] > 0) lines.push([path(graph, node).slice(1).map(name).join(";"), graph.sides[side].own[node]]);
  }
  return lines;
}

const simple = () =>
  read(
    answer([
      ["main;parse", 10],
      ["main;parse;parse", 20],
      ["main;parse;parse;k:read", 30],
      ["main;serve;k:read", 40],
    ]),
  );

const close = (one: number, other: number) => assert.ok(Math.abs(one - other) < 1e-9, `${one} is not ${other}`);

test("nodes have places in the order of their callers", () => {
  const graph = simple();
  const at = (name: string) => graph.frames.name.findIndex((known) => known === name);
  assert.deepEqual([...graph.depth], [0, 1, 2, 3, 4, 2, 3]);
  assert.deepEqual([...graph.end], [7, 7, 5, 5, 5, 7, 7]);
  close(graph.width[0], 1);
  close(graph.start[5], 0.6);
  close(graph.width[5], 0.4);
  assert.deepEqual([...graph.rows.subarray(graph.rowStart[2], graph.rowStart[3])], [2, 5]);
  assert.equal(widestOf(graph, "parse"), 2);
  assert.equal(graph.frame[2], at("parse"));
});

test("a link finds its node in another answer", () => {
  const graph = simple();
  const later = read(answer([["a;b", 5], ["main;parse", 1], ["main;parse;parse", 1], ["main;parse;parse;k:read", 1]]));
  const found = nodeOfHash(later, pathHash(graph, 4))!;
  assert.deepEqual(path(later, found).map((node) => later.frames.name[later.frame[node]]), ["all", "main", "parse", "parse", "k:read"]);
  assert.equal(nodeOfHash(later, pathHash(graph, 6)), undefined);
});

test("what matches counts once, and a bad expression is told", () => {
  const graph = simple();
  const found = find(graph, compiled("^parse$") as RegExp);
  close(found.shares[0], 0.6);
  assert.equal(found.count, 1);
  close(find(graph, compiled("KERNEL") as RegExp).shares[0], 0.7);
  assert.match(compiled("(") as string, /[Uu]nterminated/);
});

test("recursion, inversion and both sides of a function keep all weight", () => {
  const graph = simple();
  assert.deepEqual(folded(withoutRecursion(graph)), [["main;parse", 30], ["main;parse;k:read", 30], ["main;serve;k:read", 40]]);
  assert.deepEqual(folded(inverted(graph)), [
    ["k:read;parse;parse;main", 30],
    ["k:read;serve;main", 40],
    ["parse;main", 10],
    ["parse;parse;main", 20],
  ]);
  const { callers, callees } = sandwich(graph, graph.frames.name.indexOf("parse"));
  assert.deepEqual(folded(callers), [["main", 60]]);
  assert.deepEqual(folded(callees), [["", 10], ["parse", 20], ["parse;k:read", 30]]);
  assert.deepEqual(folded(grouped(graph, modules(graph.frames))), [["app", 30], ["app;[kernel]", 70]]);
});

test("a frame alone has its stacks, and nothing else", () => {
  const graph = read(answer([["main;parse", 10, 1], ["main;parse;k:read", 20, 2], ["main;serve", 30, 3], ["main;serve;parse;parse", 40, 4]]));
  const only = through(graph, graph.frames.name.indexOf("parse"));
  assert.deepEqual(folded(only), [["main;parse", 10], ["main;parse;k:read", 20], ["main;serve;parse;parse", 40]]);
  assert.deepEqual(folded(only, 1).map(([, weight]) => weight), [1, 2, 4]);
  assert.equal(only.sides[0].weight, 70);
  assert.equal(through(graph, graph.frames.name.indexOf("k:read")).sides[0].weight, 20);
});

test("functions are of the package that their name tells", () => {
  const of = (name: string, module = "/usr/lib/libx.so.1") => packageOf(name, module);
  assert.deepEqual(["tokio::runtime::park", "<alloc::vec::Vec<T> as core::iter::Extend>::extend", "<&mut hyper::Body as Read>::read", "std::__1::vector<int>::push_back", "ns<int>::f"].map((name) => of(name)), ["tokio", "alloc", "hyper", "std", "ns"]);
  assert.deepEqual(["runtime.mallocgc", "github.com/a/b.c.(*T).M", "net/http.(*conn).serve", "main.main.func1"].map((name) => of(name)), ["runtime", "github.com/a/b", "net/http", "main"]);
  assert.deepEqual(["java.util.HashMap.put", "java/util/HashMap.put", "Ljava/util/HashMap;::put"].map((name) => of(name)), ["java.util", "java.util", "java.util"]);
  assert.equal(of("py::view:/srv/app/views.py"), "app");
  assert.deepEqual(["do_futex", "poll_schedule_timeout.constprop.0", "f.part.0", "app+0x4da46"].map((name) => of(name)), Array(4).fill("libx.so.1"));
  assert.equal(of("vfs_read", "[kernel]"), "[kernel]");
  const graph = read(answer([["app::main;app::serve;tokio::poll;tokio::park;[futex]", 60], ["app::main;k:read", 40]]));
  assert.deepEqual(folded(grouped(graph, packages(graph.frames))), [["app;[kernel]", 40], ["app;tokio;[futex]", 60]]);
});

test("stacks whose callers are not known are told, with why", () => {
  const graph = read(answer([["main;work", 50], ["web;[incomplete: no mapping];f", 30], ["web;[incomplete: depth limit];g;[incomplete: no mapping]", 20]]));
  const { share, causes } = incomplete(graph);
  close(share, 0.5);
  assert.deepEqual(causes, ["no mapping", "depth limit"]);
  assert.deepEqual(incomplete(simple()), { share: 0, causes: [] });
});

test("a function's own time is what ended in it, whatever class", () => {
  const graph = read(answer([["main;lock;[futex]", 60], ["main;work;[cpu.user]", 30], ["main;[cpu.user]", 10]]));
  const totals = new Map(functions(graph).map((of) => [graph.frames.name[of.frame], [of.own[0], of.total[0]]]));
  assert.deepEqual([...totals], [["main", [10, 100]], ["lock", [60, 60]], ["work", [30, 30]]].sort((a, b) => graph.frames.name.indexOf(a[0] as string) - graph.frames.name.indexOf(b[0] as string)));
  assert.deepEqual([...functions(simple())].map((of) => of.total[0]), [100, 60, 70, 40]);
});

test("colours tell the class of most of the time", () => {
  const graph = read(answer([["main;lock;[futex]", 90], ["main;work;[cpu.user]", 10]]));
  const colours = colouring(graph, "class");
  const colourOf = (name: string) => colours.colours[colours.of[graph.parent.findIndex((_, node) => graph.frames.name[graph.frame[node]] === name)]];
  assert.equal(colourOf("[futex]"), "#cc79a7");
  assert.equal(colourOf("lock"), "#cc79a7");
  assert.equal(colourOf("work"), "#e0680c");
  assert.equal(colourOf("main"), "#cc79a7");
  assert.deepEqual(colours.legend.map((entry) => entry.name), ["cpu.user", "futex", "several"]);
});

test("what grew and what shrank have the colours of the ends", () => {
  const graph = read(answer([["a", 80, 20], ["b", 20, 80]]));
  close(graph.width[1], 0.5);
  const { of, colours } = colouring(graph, "diff");
  assert.equal(of[1], 0);
  assert.equal(of[2], colours.length - 1);
  assert.deepEqual(functions(graph).map((totals) => totals.own), [[80, 20], [20, 80]]);
});

test("a name that is too long loses what its neighbours have, too", () => {
  assert.equal(fitted("std::vec::Vec<a::b>::push", 30), "std::vec::Vec<a::b>::push");
  assert.equal(fitted("std::vec::Vec<a::b>::push", 8), "…push");
  assert.equal(fitted("app::serve::{closure}", 18), "…serve::{closure}");
  assert.equal(fitted("a_long_name_of_c", 8), "a_long_…");
  assert.equal(fitted("anything", 2), "");
});

test("a place on the canvas is a node", () => {
  const graph = simple();
  const look = { zoom: 0, scrolled: 0, isFlame: false };
  assert.equal(nodeAt(graph, look, 10, ROW * 2 + 3, 1000, 200), 2);
  assert.equal(nodeAt(graph, look, 700, ROW * 2 + 3, 1000, 200), 5);
  assert.equal(nodeAt(graph, look, 590, ROW * 3 + 3, 1000, 200), undefined);
  assert.equal(nodeAt(graph, { ...look, isFlame: true }, 700, 200 - ROW * 2 - 3, 1000, 200), 5);
  // Zoomed in, callers have the whole width.
  assert.equal(nodeAt(graph, { ...look, zoom: 5 }, 10, 3, 1000, 200), 0);
  assert.equal(nodeAt(graph, { ...look, zoom: 5 }, 10, ROW * 3 + 3, 1000, 200), 6);
});

/** A canvas that keeps its pixels, as `#rrggbb`. */
function canvas(width: number, height: number): { context: CanvasRenderingContext2D; at: (x: number, y: number) => string } {
  const data = new Uint8ClampedArray(width * height * 4);
  const image = { width, height, data };
  const nothing = () => undefined;
  const context = { canvas: { width, height }, fillStyle: "", getTransform: () => ({ a: 1 }), createImageData: () => image, putImageData: nothing, measureText: () => ({ width: 70 }), fillText: nothing, strokeRect: nothing };
  const at = (x: number, y: number) => `#${[0, 1, 2].map((byte) => data[(y * width + x) * 4 + byte].toString(16).padStart(2, "0")).join("")}`;
  return { context: context as unknown as CanvasRenderingContext2D, at };
}

test("what is too narrow is drawn together, and hides nothing wide that begins on its pixel", () => {
  // Of 100 pixels: hundreds of a twentieth of one, and two that begin within one.
  const narrow = Array.from({ length: 490 }, (_, at): [string, number] => [`a${String(at).padStart(3, "0")}`, 1]);
  const graph = read(answer([...narrow, ["b", 1000], ["c;[futex]", 500]]));
  const { context, at } = canvas(100, 3 * ROW);
  const colours = { colours: ["#111111", "#222222"], of: Uint8Array.from(graph.parent, (_, node) => (graph.frames.name[graph.frame[node]] === "b" ? 1 : 0)), legend: [] };
  const look = { zoom: 0, scrolled: 0, isFlame: false, colouring: colours, background: "#ffffff", text: "#000000", rest: "#cccccc", outline: "#000000" };
  draw(context, graph, look, 100, 3 * ROW);
  const row = (y: number) => [0, 24, 25, 26, 60, 74, 80].map((x) => at(x, y));
  assert.deepEqual(row(ROW + 2), ["#cccccc", "#cccccc", "#222222", "#222222", "#222222", "#ffffff", "#111111"]);
  assert.deepEqual(row(2 * ROW + 2), [...Array(6).fill("#ffffff"), "#111111"]);
  // A line parts rows.
  assert.equal(at(60, 2 * ROW - 1), "#ffffff");
  // What a search does not match is dimmed towards the paper, and its colour is still told.
  draw(context, graph, { ...look, matches: Uint8Array.from(graph.frames.name, (name) => (name === "c" ? 1 : 0)) }, 100, 3 * ROW);
  assert.deepEqual(row(ROW + 2).slice(4), ["#cecece", "#ffffff", "#111111"]);
});
