// Two selections: what one has more of than the other.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import { read, type DiffAnswer } from "../flame/graph";
import { FlamePanel, type Shown } from "../flame/panel";
import { QueryField } from "../parts/query";
import { Answered, Notice } from "../parts/states";
import { standardErrors } from "../statistics";
import { moment, percent, points, span, weight, whole } from "../units";
import { change, range, type Params, type Place } from "../url";
import { USUAL_QUERY } from "./explore";

/** Functions of the list above the graph. */
const LISTED = 6;
/** Below so many samples of a side a share's error is above a twentieth: 0.5 / sqrt(100). */
const FEW = 100;

export function Compare({ place }: { place: Place }) {
  const { from, until } = range(place.params);
  const query = place.params.query ?? USUAL_QUERY;
  const before = { query: place.params.before_query ?? query, from: place.params.before_from ?? "now-2h", until: place.params.before_until ?? "now-1h" };
  const asked = useAnswer<DiffAnswer>(
    url("/diff", { query, from, until, by: place.params.by, before_query: before.query, before_from: before.from, before_until: before.until, limit: "100" }),
  );
  const graph = useMemo(() => asked.answer && read(asked.answer.flame), [asked.answer]);
  const { search, zoom, colour, turn, show, of, fold } = place.params;
  const shown: Shown = { search, zoom, colour, turn, show, of, fold };
  const times = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    change({ before_from: String(form.get("from")), before_until: String(form.get("until")), zoom: undefined });
  };
  return (
    <div class="compare">
      <h1 class="visually-hidden">Compare</h1>
      <fieldset>
        <legend>Before</legend>
        <div class="asked">
          <QueryField query={before.query} from={before.from} until={before.until} label="Before" onChange={(text) => change({ before_query: text === query ? undefined : text, zoom: undefined })} />
          <form onSubmit={times} class="range">
            <input name="from" aria-label="Before, from" key={`f${before.from}`} defaultValue={before.from} size={10} />
            <span aria-hidden="true">–</span>
            <input name="until" aria-label="Before, until" key={`u${before.until}`} defaultValue={before.until} size={10} />
            <button type="submit">Show</button>
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
      <Answered asked={asked} what="The comparison">
        {(answer) => {
          if (!graph || graph.parent.length <= 1) return <p class="quiet">Neither has samples.</p>;
          const [one, other] = graph.sides;
          return (
            <>
              {(one.samples === 0 || other.samples === 0) && <Notice>{`Nothing is stored of the time ${one.samples === 0 ? "before" : "after"}: all seems new.`}</Notice>}
              {(one.samples < FEW || other.samples < FEW) && one.samples > 0 && other.samples > 0 && <Notice>{`Few samples (${one.samples} and ${other.samples}): small changes are chance.`}</Notice>}
              <Sides answer={answer} graph={graph} />
              <Changes answer={answer} beforeSamples={one.samples} afterSamples={other.samples} />
              <FlamePanel graph={graph} label="Both, by how much shares changed" shown={shown} onChange={(next) => change(next as Params, true)} />
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
    <div class="scroll" tabIndex={0} role="region" aria-label="Sides">
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

/** What changed most, and whether it is more than chance. */
function Changes({ answer, beforeSamples, afterSamples }: { answer: DiffAnswer; beforeSamples: number; afterSamples: number }) {
  const rows = answer.functions.slice(0, LISTED).filter((change) => change.self_share !== change.self_share_before);
  if (rows.length === 0) return <p>No function's share changed.</p>;
  return (
    <section>
      <h2>What changed most</h2>
      <div class="scroll" tabIndex={0} role="region" aria-label="What changed most">
        <table class="data">
          <thead>
            <tr>
              <th scope="col" class="number">Change</th>
              <th scope="col" class="number">Before</th>
              <th scope="col" class="number">After</th>
              <th scope="col" class="number" title="Standard errors of a share of so many samples; above 3 is hardly chance">Errors</th>
              <th scope="col">Function</th>
            </tr>
          </thead>
          <tbody>
            {rows.map((row, at) => {
              const errors = standardErrors(row.self_share_before, beforeSamples, row.self_share, afterSamples);
              const grew = row.self_share - row.self_share_before;
              return (
                <tr key={at}>
                  <td class={`number ${grew > 0 ? "grew" : "shrank"}`}>{points(grew)}</td>
                  <td class="number">{percent(row.self_share_before)}</td>
                  <td class="number">{percent(row.self_share)}</td>
                  <td class="number">{errors >= 3 ? errors.toFixed(1) : `${errors.toFixed(1)}, may be chance`}</td>
                  <td>
                    <button type="button" class="link code" onClick={() => change({ of: row.name })}>
                      {row.name}
                    </button>{" "}
                    <span class="quiet code">{row.module}</span>
                  </td>
                </tr>
              );
            })}
          </tbody>
        </table>
      </div>
    </section>
  );
}
