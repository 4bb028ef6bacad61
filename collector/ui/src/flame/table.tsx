// Functions beside the flame graph: the same samples, sorted. Choosing one searches for it there.

import { useMemo } from "preact/hooks";
import { percent, points, weight } from "../units";
import type { Graph } from "./graph";
import { functions, type FunctionTotals } from "./transform";

/** Rows that are shown; more tell nobody anything. */
const SHOWN = 200;

type Column = "own" | "total" | "change" | "name";

interface Props {
  graph: Graph;
  /** Frames that a search matches. */
  matches?: Uint8Array;
  onSearch: (name: string) => void;
  onSandwich: (frame: number) => void;
  /** The column that they are sorted by, where one was chosen. */
  sort?: string;
  onSort: (column: Column) => void;
}

const COLUMNS: readonly Column[] = ["own", "total", "change", "name"];

export function FunctionTable({ graph, matches, onSearch, onSandwich, sort: chosen, onSort }: Props) {
  const isDiff = graph.sides.length > 1;
  const sort = COLUMNS.find((column) => column === chosen) ?? (isDiff ? "change" : "own");
  const all = useMemo(() => functions(graph), [graph]);
  const last = graph.sides.length - 1;
  const part = (weights: number[], side = last) => (graph.sides[side].weight > 0 ? weights[side] / graph.sides[side].weight : 0);
  const change = (of: FunctionTotals) => (isDiff ? part(of.own, 1) - part(of.own, 0) : 0);
  const keys: Record<Column, (of: FunctionTotals) => number> = {
    own: (of) => part(of.own),
    total: (of) => part(of.total),
    change: (of) => Math.abs(change(of)),
    name: (of) => -graph.frames.rank[of.frame],
  };
  // Sorted once: what is typed into the search only leaves rows out.
  const sorted = useMemo(() => [...all].sort((a, b) => keys[sort](b) - keys[sort](a) || keys.total(b) - keys.total(a)), [all, sort]);
  const rows = useMemo(() => (matches ? sorted.filter((of) => matches[of.frame]) : sorted), [sorted, matches]);
  const head = (column: Column, text: string, title: string) => (
    <th scope="col" class={column === "name" ? undefined : "number"} aria-sort={sort === column ? (column === "name" ? "ascending" : "descending") : "none"}>
      <button type="button" class="sort" title={title} onClick={() => onSort(column)}>
        {text}
      </button>
    </th>
  );
  return (
    <div class="functions" tabIndex={0} role="region" aria-label="Functions">
      <table class="data">
        <thead>
          <tr>
            {isDiff && head("change", "Change", "Change of the part it takes itself")}
            {head("own", "Self", "Without what it called")}
            {head("total", "Total", "With what it called")}
            {head("name", "Function", "By name")}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, SHOWN).map((of) => (
            <tr key={of.frame}>
              {isDiff && <td class={`number ${change(of) > 0 ? "grew" : "shrank"}`}>{points(change(of))}</td>}
              <td class="number" title={weight(of.own[last], graph.unit)}>
                {percent(part(of.own))}
              </td>
              <td class="number" title={weight(of.total[last], graph.unit)}>
                {percent(part(of.total))}
              </td>
              <td class="name">
                <button type="button" class="link code" title={`${graph.frames.name[of.frame]}\n${graph.frames.module[of.frame]}`} onClick={() => onSearch(graph.frames.name[of.frame])} onDblClick={() => onSandwich(of.frame)}>
                  {graph.frames.name[of.frame]}
                </button>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
      {rows.length > SHOWN && <p class="quiet">{`${SHOWN} of ${rows.length} functions`}</p>}
      {rows.length === 0 && <p class="quiet">No function matches.</p>}
    </div>
  );
}
