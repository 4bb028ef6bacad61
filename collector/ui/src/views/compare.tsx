// Two selections: what one has more of than the other.

import { useMemo, useState } from "preact/hooks";
import { download, url, useAnswer } from "../api/client";
import type { Compared, Comparison } from "../api/types";
import { read, type DiffAnswer } from "../flame/graph";
import { Choice, FlamePanel, shownBy } from "../flame/panel";
import { Gaps } from "../parts/gaps";
import { QueryField } from "../parts/query";
import { TimeField } from "../parts/range";
import { Answered, Notice } from "../parts/states";
import { against } from "../selector";
import { earlier, lengthMs, typedTime } from "../time";
import { measured, moment, points, span, weight, whole } from "../units";
import { change, range, type Params, type Place } from "../url";
import { USUAL_QUERY } from "./explore";

/** Rows of a list: the report has them all. */
const LISTED = 8;
/** What a time is compared with, as long as itself: how much earlier, in milliseconds; 0: just before it. */
const BASELINES: [key: string, text: string, byMs: number][] = [
  ["just", "just before", 0],
  ["day", "a day earlier", 86_400e3],
  ["week", "a week earlier", 7 * 86_400e3],
];
/** Below so many samples of a side a share's error is above a twentieth: 0.5 / sqrt(100). */
const FEW = 100;

export function Compare({ place }: { place: Place }) {
  const { from, until } = range(place.params);
  const query = place.params.query ?? USUAL_QUERY;
  // Once for a time: what ends now would be another one with every look at the clock.
  const baselines = useMemo(() => BASELINES.map(([key, , byMs]) => ({ key, ...earlier(from, until, byMs || lengthMs(from, until)) })), [from, until]);
  const [just] = baselines;
  const before = { query: place.params.before_query ?? query, from: place.params.before_from ?? just.from, until: place.params.before_until ?? just.until };
  const baseline = baselines.find((known) => known.from === before.from && known.until === before.until);
  const asked = useAnswer<DiffAnswer>(
    url("/diff", { query, from, until, by: place.params.by, before_query: before.query, before_from: before.from, before_until: before.until, limit: "100" }),
  );
  // Windows shorter than ten seconds are worth shorter steps: only the address says so.
  const compared = { query, from, until, before_query: before.query, before_from: before.from, before_until: before.until, step: place.params.step };
  const tested = useAnswer<Comparison>(url("/compare", { ...compared, limit: "200" }));
  const graph = useMemo(() => asked.answer && read(asked.answer.flame), [asked.answer]);
  const shown = shownBy(place.params);
  const times = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    change({ before_from: typedTime(String(form.get("from")), before.from), before_until: typedTime(String(form.get("until")), before.until), zoom: undefined });
  };
  const choose = (key: string) => {
    const chosen = baselines.find((known) => known.key === key);
    if (chosen) change({ before_from: chosen.from, before_until: chosen.until, zoom: undefined });
  };
  return (
    <div class="compare">
      <h1 class="visually-hidden">Compare</h1>
      <fieldset>
        <legend>Before</legend>
        <div class="asked">
          <QueryField query={before.query} from={before.from} until={before.until} label="Before" onChange={(text) => change({ before_query: text === query ? undefined : text, zoom: undefined })} />
          <form onSubmit={times} class="range">
            <Choice label="Baseline" value={baseline?.key ?? ""} options={[...(baseline ? [] : [["", "as typed"] as [string, string]]), ...BASELINES.map(([key, text]): [string, string] => [key, text])]} onChange={choose} />
            <TimeField name="from" label="Before, from" value={before.from} />
            <span aria-hidden="true">–</span>
            <TimeField name="until" label="Before, until" value={before.until} />
            <button type="submit">Show</button>
            <button type="button" class="link" onClick={() => change({ before_from: from, before_until: until, zoom: undefined })}>
              Same time as after
            </button>
          </form>
        </div>
      </fieldset>
      <fieldset>
        <legend>After</legend>
        <div class="asked">
          <QueryField query={query} from={from} until={until} label="After" onChange={(query) => change({ query, before_query: before.query === query ? undefined : place.params.before_query, zoom: undefined })} />
          <span class="quiet">its time is that of the page, above</span>
        </div>
      </fieldset>
      <LabelAgainstLabel query={query} from={from} until={until} />
      <Report asks={compared} />
      <Answered asked={tested} what="Whether it is real">
        {(answer) => <Reality answer={answer} />}
      </Answered>
      <Answered asked={asked} what="The flame graph of both">
        {(answer) => {
          if (!graph || graph.parent.length <= 1) return <p class="quiet">Neither has samples.</p>;
          const [one, other] = graph.sides;
          return (
            <>
              {(one.samples === 0 || other.samples === 0) && <Notice>{`Nothing is stored of the time ${one.samples === 0 ? "before" : "after"}: all seems new.`}</Notice>}
              {(one.samples < FEW || other.samples < FEW) && one.samples > 0 && other.samples > 0 && <Notice>{`Few samples (${one.samples} and ${other.samples}): small changes are chance.`}</Notice>}
              <Sides answer={answer} graph={graph} />
              <FlamePanel
                graph={graph}
                label="Both, by how much shares changed"
                shown={shown}
                onChange={(next) => change(next as Params, true)}
                gaps={
                  <>
                    <Gaps of="Before" {...before} />
                    {(before.query !== query || before.from !== from || before.until !== until) && <Gaps of="After" query={query} from={from} until={until} />}
                  </>
                }
              />
            </>
          );
        }}
      </Answered>
    </div>
  );
}

function Sides({ answer, graph }: { answer: DiffAnswer; graph: ReturnType<typeof read> }) {
  const subjects = [answer.before, answer.flame];
  return (
    <div class="scroll sides" tabIndex={0} role="region" aria-label="Sides">
      <table class="data">
        <thead>
          <tr>
            <th scope="col">Side</th>
            <th scope="col">Query</th>
            <th scope="col">Time</th>
            <th scope="col" class="number">Weight</th>
            <th scope="col" class="number">Samples</th>
            <th scope="col" class="number">Threads at a time</th>
          </tr>
        </thead>
        <tbody>
          {subjects.map((subject, at) => {
            const lengthMs = subject.until_unix_ms - subject.from_unix_ms;
            return (
              <tr key={at}>
                <td>{at === 0 ? "before" : "after"}</td>
                <td class="code">{subject.query}</td>
                <td>{`${moment(subject.from_unix_ms)}, ${span(lengthMs)}`}</td>
                <td class="number">{weight(graph.sides[at].weight, graph.unit)}</td>
                <td class="number">{whole(graph.sides[at].samples)}</td>
                <td class="number">{graph.unit === "ns" ? (graph.sides[at].weight / (lengthMs * 1e6)).toFixed(2) : "–"}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </div>
  );
}

const KINDS: [key: "total" | "classes" | "functions" | "signals", name: string][] = [
  ["total", "All of it"],
  ["classes", "Classes of time"],
  ["functions", "Functions, without what they called"],
  ["signals", "Signals of the hosts"],
];
const WORDS: Record<Compared["is"], string> = { grew: "▲ grew", shrank: "▼ shrank", chance: "may be chance", unknown: "too few steps" };

function Reality({ answer }: { answer: Comparison }) {
  const all = [...answer.classes, ...answer.functions];
  const real = all.filter((change) => change.is === "grew" || change.is === "shrank").length;
  const [total] = answer.total;
  return (
    <section>
      <h2>
        What changed, and whether it is real{" "}
        <span class="quiet">{`${answer.before.steps} and ${answer.after.steps} steps of ${span(answer.step_ms)}; chances are corrected for the number of comparisons`}</span>
      </h2>
      <p>
        {total
          ? `All of it: ${quantity(total.before, total.unit)} before, ${quantity(total.after, total.unit)} after, ${relative(total)}: ${WORDS[total.is]}. `
          : "Not enough is stored of both to compare. "}
        {total && total.is !== "unknown" && (real > 0 ? `${real} of ${all.length} classes and functions changed.` : "No class and no function is sure to have changed.")}
      </p>
      {answer.notes.map((note) => (
        <Notice key={note}>{note}</Notice>
      ))}
      {KINDS.slice(1).map(([key, name]) => answer[key].length > 0 && <Changes key={key} name={name} changes={answer[key]} isCode={key === "functions"} />)}
    </section>
  );
}

/** A value of a unit. Threads at a time are small where a process waits most of its time. */
const quantity = (value: number, unit: string) => (unit === "threads" ? `${value.toFixed(3)} threads` : measured(value, unit));

function relative({ relative }: Compared): string {
  return relative === null ? "new" : points(relative);
}

function Changes({ name, changes, isCode }: { name: string; changes: Compared[]; isCode: boolean }) {
  const shown = changes.slice(0, LISTED);
  return (
    <>
      <h3>{name}</h3>
      <div class="scroll" tabIndex={0} role="region" aria-label={name}>
        <table class="data">
          <thead>
            <tr>
              <th scope="col">Real</th>
              <th scope="col" class="number">Change</th>
              <th scope="col" class="number" title="What holds the true change with a confidence of 95 %">95 %</th>
              <th scope="col" class="number">Before</th>
              <th scope="col" class="number">After</th>
              <th scope="col" class="number" title="How likely so great a change is where there is none">Chance</th>
              <th scope="col" class="wide">What</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((row) => (
              <tr key={`${row.name} ${row.instance}`} class={row.is === "chance" || row.is === "unknown" ? "quiet" : undefined}>
                <td class={row.is}>{WORDS[row.is]}</td>
                <td class={`number ${row.is}`}>{relative(row)}</td>
                <td class="number">{row.interval && row.before !== 0 ? `${points(row.interval[0] / row.before)} to ${points(row.interval[1] / row.before)}` : "–"}</td>
                <td class="number">{quantity(row.before, row.unit)}</td>
                <td class="number">{quantity(row.after, row.unit)}</td>
                <td class="number">{row.p === null ? "–" : row.p < 0.0001 ? "< 0.0001" : row.p.toFixed(4)}</td>
                <td>
                  {isCode ? (
                    <button type="button" class="link code" onClick={() => change({ of: row.name })}>
                      {row.name}
                    </button>
                  ) : (
                    <span class="code">{row.name}</span>
                  )}{" "}
                  <span class="quiet code">{row.instance}</span>
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {changes.length > LISTED && <p class="quiet">{`and ${changes.length - LISTED} more, which the report has`}</p>}
    </>
  );
}

/** Two values of one label against each other, of the same time. */
function LabelAgainstLabel({ query, from, until }: { query: string; from: string; until: string }) {
  const [label, setLabel] = useState("");
  const [values, setValues] = useState<[string, string]>(["", ""]);
  const names = useAnswer<{ labels: { name: string }[] }>(url("/labels", { from, until }));
  const known = useAnswer<{ values: string[] }>(label ? url(`/label/${encodeURIComponent(label)}/values`, { from, until }) : undefined);
  const give = (event: SubmitEvent) => {
    event.preventDefault();
    change({ before_query: against(query, label, values[0]), query: against(query, label, values[1]), before_from: from, before_until: until, zoom: undefined });
  };
  const options = (empty: string): [string, string][] => [["", empty], ...(known.answer?.values ?? []).map((value): [string, string] => [value, value])];
  return (
    <form class="asked" onSubmit={give} aria-label="One label's value against another">
      <Choice label="Or label against label" value={label} options={[["", "choose a label"], ...(names.answer?.labels ?? []).filter(({ name }) => name !== "class").map(({ name }): [string, string] => [name, name])]} onChange={(label) => (setLabel(label), setValues(["", ""]))} />
      {label && <Choice label="before" value={values[0]} options={options("its value")} onChange={(value) => setValues([value, values[1]])} />}
      {label && <Choice label="after" value={values[1]} options={options("its value")} onChange={(value) => setValues([values[0], value])} />}
      {label && (
        <button type="submit" disabled={!values[0] || !values[1]}>
          Compare, of the same time
        </button>
      )}
    </form>
  );
}

function Report({ asks }: { asks: Record<string, string | undefined> }) {
  const [problem, setProblem] = useState("");
  const keep = (end: string) => {
    setProblem("");
    download(url(`/compare.${end}`, asks), `comparison.${end}`).then(setProblem, (error: unknown) => setProblem(error instanceof Error ? error.message : String(error)));
  };
  return (
    <p class="asked">
      Report{" "}
      <button type="button" onClick={() => keep("html")}>
        HTML
      </button>
      <button type="button" onClick={() => keep("md")}>
        Markdown
      </button>
      {problem && <span class="bad" role="alert">{problem}</span>}
    </p>
  );
}
