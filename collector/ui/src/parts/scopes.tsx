// Services, pods or containers by what their threads do: CPUs in use, how that was over time, and one bar of their classes.

import type { ComponentChildren } from "preact";
import type { DecomposedScope, Decomposition } from "../api/types";
import { Spark } from "../charts/spark";
import { ClassBar } from "./bar";

/** Scopes that are listed. */
const LISTED = 20;

interface Props {
  answer: Decomposition;
  /** What a scope is: the column's name. */
  what: string;
  /** A scope's name; empty where it has none. */
  name: (scope: DecomposedScope) => string;
  /** Its name as it is shown. */
  link: (name: string, text: string) => ComponentChildren;
  /** What limits it, where that is known of such scopes: a column before the others, and what is worst first. */
  limits?: { told: (name: string) => ComponentChildren; badness: (name: string) => number };
}

export function ScopeTable({ answer, what, name, link, limits }: Props) {
  // On average over the steps of which anything is stored, not over a time in which nobody looked.
  const stepMs = answer.step_ms ?? 1;
  const told = new Set(answer.scopes.flatMap((scope) => scope.steps ?? []).map((step) => step.start_unix_ms));
  const lengthNs = told.size * stepMs * 1e6;
  const cpu = (weights: number[]) => answer.classes.reduce((sum, known, at) => sum + (known.group === "cpu" ? weights[at] : 0), 0);
  const badness = (scope: DecomposedScope) => limits?.badness(name(scope)) ?? 0;
  const rows = [...answer.scopes].sort((a, b) => badness(b) - badness(a) || cpu(b.weights) - cpu(a.weights)).slice(0, LISTED);
  const times = [...told].sort((a, b) => a - b);
  const trend = (scope: DecomposedScope) => {
    const known = new Map((scope.steps ?? []).map((step) => [step.start_unix_ms, cpu(step.weights) / (stepMs * 1e6)]));
    return times.map((start_unix_ms) => ({ start_unix_ms, value: known.get(start_unix_ms) ?? 0 }));
  };
  if (rows.length === 0) return <p class="quiet">No thread time is stored of this time.</p>;
  const left = answer.scopes.length + answer.left_out - rows.length;
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label={`${what}s`}>
      <table class={limits ? "data scopes limited" : "data scopes"}>
        <thead>
          <tr>
            {limits && <th scope="col">What limits it</th>}
            <th scope="col">{what}</th>
            <th scope="col" class="number" title="CPUs in use, on average">
              CPUs
            </th>
            <th scope="col">Over time</th>
            <th scope="col" class="number" title="Threads that were not idle, on average">
              Threads
            </th>
            <th scope="col" class="wide">
              What they do
            </th>
          </tr>
        </thead>
        <tbody>
          {rows.map((scope) => {
            const of = name(scope);
            return (
              <tr key={of}>
                {limits && <td class="what">{limits.told(of)}</td>}
                <td class="name">{link(of, of || "(none)")}</td>
                <td class="number">{(cpu(scope.weights) / lengthNs).toFixed(2)}</td>
                <td>
                  <Spark values={trend(scope)} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} unit="" />
                </td>
                <td class="number">{(scope.weight / lengthNs).toFixed(2)}</td>
                <td class="wide">
                  <ClassBar parts={answer.classes.map((known, at) => ({ name: known.name, weight: scope.weights[at] }))} label={`Time of ${of}`} />
                </td>
              </tr>
            );
          })}
        </tbody>
      </table>
      {left > 0 && <p class="quiet">{`and ${left} more that use less CPU`}</p>}
    </div>
  );
}
