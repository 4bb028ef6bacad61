// What came of a profile on demand: its verdict, its flame graph, how its time is spread within seconds, and what its threads did when.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Bursts, OnDemand, Timeline } from "../api/types";
import { Heat, type Cell } from "../charts/heat";
import { ThreadLines } from "../charts/threads";
import { read, type FlameAnswer } from "../flame/graph";
import { Choice, FlamePanel, shownBy } from "../flame/panel";
import { Coverage, Facts, sentence, Steps, TimeBar, Who } from "../parts/finding";
import { levelOf } from "../parts/severity";
import { Answered, Notice } from "../parts/states";
import { duration, moment, percent, whole } from "../units";
import { change, type Params, type Place } from "../url";

const TYPES: [string, string][] = [
  ["wall", "all time"],
  ["cpu", "CPU"],
  ["offcpu", "off CPU"],
  ["queue", "run queue"],
  ["lock", "locks"],
  ["io", "I/O"],
  ["net", "network"],
  ["memory", "memory"],
  ["wait", "other waits"],
];

interface Props {
  profile: OnDemand;
  outcome: NonNullable<OnDemand["outcome"]>;
  place: Place;
}

export function Recording({ profile, outcome, place }: Props) {
  const path = `/profile/${encodeURIComponent(profile.id)}`;
  const { type = "wall", from_ms, until_ms } = place.params;
  const flame = useAnswer<FlameAnswer>(url(`${path}/flamegraph`, { type, from_ms, until_ms }));
  // All time is the same in every part of a second: what is seen of it is when threads ran.
  const burstType = type === "wall" ? "cpu" : type;
  const bursts = useAnswer<Bursts>(url(`${path}/bursts`, { type: burstType }));
  const lines = useAnswer<Timeline>(url(`${path}/timeline`, { type }));
  const graph = useMemo(() => flame.answer && read(flame.answer), [flame.answer]);
  const shown = shownBy({ show: "flame", ...place.params });
  const chosen = from_ms && until_ms ? ([Number(from_ms), Number(until_ms)] as const) : undefined;
  const choose = (from: number, until: number) => change({ from_ms: from.toFixed(0), until_ms: until.toFixed(0), zoom: undefined }, true);
  const level = levelOf(outcome.verdict.severity);
  const diagnosis = outcome.diagnosis ?? {};
  const found = diagnosis.verdict;
  const files = useMemo(
    (): [string, string, string][] => [
      [`${path}/profile.pb.gz`, "pb.gz", "pprof"],
      [`${path}/folded`, "folded", "folded"],
      [`${path}/flame.svg`, "svg", "SVG"],
      [`${path}/speedscope`, "speedscope.json", "speedscope"],
    ],
    [path],
  );
  return (
    <article>
      <p class="kicker">
        <span class={`severity ${level.name}`}>
          {level.mark} {level.word}
        </span>{" "}
        <b class="code">{outcome.verdict.code}</b>
        {` · ${duration(outcome.window_ms * 1e6)} from ${moment(profile.asked_unix_ms)}, ${profile.frequency_hz} samples a second · confidence ${percent(outcome.verdict.confidence)}`}
      </p>
      <p class="summary">{sentence(outcome.verdict.summary)}</p>
      {found && <Who found={found} />}
      {outcome.window_ms < profile.duration_ms * 0.95 && <Notice>{`The target ended early: ${duration(outcome.window_ms * 1e6)} of ${duration(profile.duration_ms * 1e6)} were recorded.`}</Notice>}
      {outcome.lost > 0 && <Notice>{`${whole(outcome.lost)} samples were lost: what is shown is less than what happened.`}</Notice>}
      {found && (
        <div class="columns">
          <Facts found={found} />
          <Steps found={found} />
        </div>
      )}
      <TimeBar diagnosis={diagnosis} params={place.params} />
      <section aria-labelledby="stacks">
        <h2 id="stacks">
          Stacks <Choice label="of" value={type} options={TYPES} onChange={(type) => change({ type: type === "wall" ? undefined : type, zoom: undefined }, true)} />{" "}
          {chosen && (
            <>
              <span class="quiet">{`${duration(chosen[0] * 1e6)} to ${duration(chosen[1] * 1e6)} alone, as sampled`}</span>{" "}
              <button type="button" class="link" onClick={() => change({ from_ms: undefined, until_ms: undefined, zoom: undefined }, true)}>
                All of it
              </button>
            </>
          )}
        </h2>
        <Answered asked={bursts} what="Bursts">
          {(answer) => <BurstMap answer={answer} name={TYPES.find(([key]) => key === burstType)?.[1] ?? burstType} chosen={chosen} onChoose={choose} />}
        </Answered>
        <Answered asked={flame} what="The flame graph">
          {() =>
            graph && graph.parent.length > 1 ? (
              <FlamePanel graph={graph} label={`Flame graph of ${profile.target}`} shown={shown} onChange={(next) => change(next as Params, true)} file={{ type }} files={files} />
            ) : (
              <p class="quiet">There is no time of this kind{chosen ? " in this stretch" : ""}.</p>
            )
          }
        </Answered>
      </section>
      <section aria-labelledby="lines">
        <h2 id="lines">
          Threads over time <span class="quiet">bars are waits, as long as they were; lines are samples of running threads; pull across a lane to see the stacks of that time</span>
        </h2>
        <Answered asked={lines} what="The time line">
          {(answer) => (
            <>
              {answer.missing > 0 && <Notice>{`${whole(answer.missing)} samples have no time: there was room for those up to ${duration(answer.last_ns)}. Ask for less time, or a lower rate.`}</Notice>}
              {answer.left_out > 0 && <Notice>{`${whole(answer.left_out)} threads of which less is known are not shown.`}</Notice>}
              {answer.threads.length ? <ThreadLines answer={answer} chosen={chosen} onChoose={choose} /> : <p class="quiet">No thread had time of this kind.</p>}
            </>
          )}
        </Answered>
      </section>
      {diagnosis.coverage && <Coverage coverage={diagnosis.coverage} windowS={diagnosis.window_s} />}
      {!diagnosis.coverage && outcome.coverage.length > 0 && (
        <ul class="quiet">
          {outcome.coverage.map((told, at) => (
            <li key={at}>{told}</li>
          ))}
        </ul>
      )}
    </article>
  );
}

/** Seconds against parts of them: a burst stands out, and what repeats makes lines. */
function BurstMap({ answer, name, chosen, onChoose }: { answer: Bursts; name: string; chosen?: readonly [number, number]; onChoose: (fromMs: number, untilMs: number) => void }) {
  const rows = answer.columns[0]?.length ?? 0;
  if (rows === 0) return null;
  const columnMs = answer.column_ns / 1e6;
  const cellMs = columnMs / rows;
  const start = ([column, row]: Cell) => column * columnMs + row * cellMs;
  const cell = (ms: number): Cell => {
    const at = Math.max(0, Math.min(answer.columns.length * rows - 1, Math.floor(ms / cellMs)));
    return [Math.floor(at / rows), at % rows];
  };
  const told = (at: Cell, value = 0) => `at ${duration(start(at) * 1e6)}: ${(value / (cellMs * 1e6)).toFixed(2)} threads at a time`;
  return (
    <Heat
      columns={answer.columns}
      rows={rows}
      label={`Within seconds: ${name}`}
      height={150}
      told={told}
      axes={{ low: "0 ms", high: `${columnMs.toFixed(0)} ms`, first: "0 s", last: duration(answer.duration_ns) }}
      chosen={chosen && [cell(chosen[0]), cell(chosen[1] - cellMs / 2)]}
      onChoose={(from, to) => onChoose(Math.floor(start(from)), Math.ceil(start(to) + cellMs))}
    />
  );
}
