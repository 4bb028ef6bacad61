// Services, pods or containers by what their threads do: CPUs in use, how that was over time, and one bar of their classes.

import type { ComponentChildren } from "preact";
import type { DecomposedScope, Decomposition } from "../api/types";
import { Spark } from "../charts/spark";
import { measured } from "../units";
import { ClassBar } from "./bar";
import { Legend } from "./legend";

/** Scopes that are listed. */
const LISTED = 20;

/** What limits scopes, where that is known of them. */
export interface Limits {
  /** In words: a column before the others. */
  told: (name: string) => ComponentChildren;
  /** What is worst comes first. */
  badness: (name: string) => number;
  /** How much of their CPUs its hosts have free, per cent. */
  free: (name: string) => number | undefined;
  /** Since when, in milliseconds; 0 where nobody knows or nothing does. */
  since: (name: string) => number;
}

interface Props {
  answer: Decomposition;
  /** What a scope is: the column's name. */
  what: string;
  /** A scope's name; empty where it has none. */
  name: (scope: DecomposedScope) => string;
  /** Its name as it is shown. */
  link: (name: string, text: string) => ComponentChildren;
  limits?: Limits;
  /** What they are sorted by, and how that is changed. */
  sort?: string;
  onSort?: (key: string) => void;
  /** Which are listed. */
  admits?: (name: string) => boolean;
}

export function ScopeTable({ answer, what, name, link, limits, sort = "", onSort, admits }: Props) {
  // On average over the steps of which anything is stored, not over a time in which nobody looked.
  const stepMs = answer.step_ms ?? 1;
  const told = new Set(answer.scopes.flatMap((scope) => scope.steps ?? []).map((step) => step.start_unix_ms));
  const lengthNs = told.size * stepMs * 1e6;
  const cpu = (weights: number[]) => answer.classes.reduce((sum, known, at) => sum + (known.group === "cpu" ? weights[at] : 0), 0);
  const badness = (scope: DecomposedScope) => limits?.badness(name(scope)) ?? 0;
  const free = (scope: DecomposedScope) => limits?.free(name(scope)) ?? Infinity;
  const usual = (a: DecomposedScope, b: DecomposedScope) => badness(b) - badness(a) || cpu(b.weights) - cpu(a.weights);
  const by: Record<string, (a: DecomposedScope, b: DecomposedScope) => number> = {
    name: (a, b) => name(a).localeCompare(name(b)),
    cpu: (a, b) => cpu(b.weights) - cpu(a.weights),
    threads: (a, b) => b.weight - a.weight,
    free: (a, b) => free(a) - free(b) || usual(a, b),
    since: (a, b) => (limits?.since(name(b)) ?? 0) - (limits?.since(name(a)) ?? 0) || usual(a, b),
  };
  const found = admits ? answer.scopes.filter((scope) => admits(name(scope))) : answer.scopes;
  const rows = [...found].sort(by[sort] ?? usual).slice(0, LISTED);
  const times = [...told].sort((a, b) => a - b);
  const trend = (scope: DecomposedScope) => {
    const known = new Map((scope.steps ?? []).map((step) => [step.start_unix_ms, cpu(step.weights) / (stepMs * 1e6)]));
    return times.map((start_unix_ms) => ({ start_unix_ms, value: known.get(start_unix_ms) ?? 0 }));
  };
  if (answer.scopes.length === 0) return <p class="quiet">No thread time is stored of this time.</p>;
  const left = found.length + (admits ? 0 : answer.left_out) - rows.length;
  const head = (key: string, text: string, title?: string, number = true) => (
    <th scope="col" class={number ? "number" : undefined} title={title} aria-sort={onSort && (sort === key ? (key === "name" || key === "free" ? "ascending" : "descending") : "none")}>
      {onSort ? (
        <button type="button" class="sort" onClick={() => onSort(key)}>
          {text}
        </button>
      ) : (
        text
      )}
    </th>
  );
  return (
    <>
      <div class="scroll" tabIndex={0} role="region" aria-label={`${what}s`}>
        <table class={limits ? "data scopes limited" : "data scopes"}>
          <thead>
            <tr>
              {limits && head("", "What limits it", undefined, false)}
              {head("name", what, undefined, false)}
              {limits && head("free", "CPU free", "Of the CPUs of its hosts: the median of them")}
              {head("cpu", "CPUs", "CPUs in use, on average")}
              <th scope="col">Over time</th>
              {head("threads", "Threads", "Threads that were not idle, on average")}
              <th scope="col" class="wide">
                What they do
              </th>
            </tr>
          </thead>
          <tbody>
            {rows.map((scope) => {
              const of = name(scope);
              const headroom = limits?.free(of);
              return (
                <tr key={of}>
                  {limits && <td class="what">{limits.told(of)}</td>}
                  <td class="name">{link(of, of || "(none)")}</td>
                  {limits && (
                    <td class="number" data-label="CPU free">
                      {headroom === undefined ? "" : measured(headroom, "%")}
                    </td>
                  )}
                  <td class="number" data-label="CPUs">
                    {(cpu(scope.weights) / lengthNs).toFixed(2)}
                  </td>
                  <td class="trend">
                    <Spark values={trend(scope)} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} unit="" />
                  </td>
                  <td class="number" data-label="threads">
                    {(scope.weight / lengthNs).toFixed(2)}
                  </td>
                  <td class="wide">
                    <ClassBar parts={answer.classes.map((known, at) => ({ name: known.name, weight: scope.weights[at] }))} label={`Time of ${of}`} />
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
      {rows.length === 0 && <p class="quiet">{`No ${what.toLowerCase()} matches.`}</p>}
      {rows.length > 0 && <Legend entries={answer.classes} label="What they do" />}
      {left > 0 && <p class="quiet">{`and ${left} more that ${sort ? "come after these" : "use less CPU"}`}</p>}
    </>
  );
}
