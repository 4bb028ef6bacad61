// One host's verdict: the constraint in a sentence, the numbers for and against it, what to test and to do, and the flame graph that shows it.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Constraint, Constraints, Diagnosis, Finding, Host, Overview } from "../api/types";
import { read, widestOf, type FlameAnswer, type Graph } from "../flame/graph";
import { FlamePanel, shownBy } from "../flame/panel";
import { Coverage, Facts, sentence, Steps, TimeBar, Who } from "../parts/finding";
import { Gaps } from "../parts/gaps";
import { Link } from "../parts/link";
import { levelOf, Severity } from "../parts/severity";
import { Answered, Partial } from "../parts/states";
import { Strip } from "../parts/strip";
import { is, oneOf, selector } from "../selector";
import { moment, percent, span } from "../units";
import { change, range, type Params, type Place } from "../url";

const EVERY_MS = 10_000;
/** As much of the time in which the verdict holds is shown as its proof: the newest of it. */
const PROOF_MS = 15 * 60_000;

export function VerdictView({ place }: { place: Place }) {
  const host = place.params.host ?? "";
  const { from, until } = range(place.params);
  const query = selector("", [is("host", host)]);
  const every = until === "now" ? EVERY_MS : undefined;
  const glance = useAnswer<Overview>(host ? url("/overview", { query, from, until }) : undefined, every);
  const verdict = useAnswer<Constraints>(host ? url("/constraints", { query, from, until, by: "host", diagnosis: "true" }) : undefined, every);
  if (!host) return <p class="empty">No host is named: choose one in the overview.</p>;
  return (
    <Answered asked={verdict} what={`What limits ${host}`}>
      {(answer) => {
        const constraint = answer.scopes[0]?.constraints[0];
        if (!constraint) return <Nothing host={host} params={place.params} />;
        return <Verdict constraint={constraint} answer={answer} glance={glance.answer} place={place} />;
      }}
    </Answered>
  );
}

function Nothing({ host, params }: { host: string; params: Params }) {
  return (
    <section class="empty">
      <h1>Nothing was diagnosed of {host} in this time.</h1>
      <p>
        Its agent may be away, or this time is before its first window. <Link view="/" params={{ from: "now-24h", until: params.until }}>See the last 24 hours.</Link>
      </p>
    </section>
  );
}

function Verdict({ constraint, answer, glance, place }: { constraint: Constraint; answer: Constraints; glance?: Overview; place: Place }) {
  const host = place.params.host ?? "";
  const diagnosis: Diagnosis = typeof constraint.diagnosis === "object" && constraint.diagnosis !== null ? constraint.diagnosis : {};
  const found = diagnosis.verdict;
  const seen: Host | undefined = glance?.hosts[0];
  const others = (diagnosis.ranked ?? []).slice(1);
  const before = (answer.scopes[0]?.constraints ?? []).slice(1);
  const now = glance?.until_unix_ms ?? constraint.until_unix_ms;
  return (
    <article class="verdict">
      <div class="verdict-head">
        <p class="kicker">
          <Severity severity={constraint.severity} code={constraint.code} /> <b class="code">{constraint.code}</b> on <b>{host}</b>
          {" · "}
          <span title={moment(constraint.since_unix_ms)}>{`for ${span(now - constraint.since_unix_ms)}, since ${moment(constraint.since_unix_ms)}`}</span>
          {` · confidence ${percent(constraint.confidence)}`}
          {found?.gain_upper_bound ? ` · at most ${found.gain_upper_bound.toFixed(1)} times the throughput without it` : ""}
        </p>
        <h1>{sentence(constraint.summary || constraint.code)}</h1>
        {found && <Who found={found} />}
      </div>
      <Partial what="What limited it over time" of={[glance]} />
      {glance && seen && <Strip spans={seen.history} fromMs={glance.from_unix_ms} untilMs={glance.until_unix_ms} label={`What limited ${host}`} />}
      {found && (
        <div class="columns">
          <Facts found={found} />
          <Steps found={found} />
        </div>
      )}
      <TimeBar diagnosis={diagnosis} params={place.params} />
      <Proof constraint={constraint} found={found} place={place} />
      {(others.length > 0 || before.length > 0) && (
        <div class="columns">
          {others.length > 0 && (
            <section>
              <h2>Also found</h2>
              <ul class="findings">
                {others.map((other, at) => (
                  <li key={at}>
                    <span class={`severity ${levelOf(other.severity).name}`}>
                      {levelOf(other.severity).mark} {levelOf(other.severity).word}
                    </span>{" "}
                    <b class="code">{other.code}</b> <span class="number">{percent(other.share)}</span> {other.summary}
                  </li>
                ))}
              </ul>
            </section>
          )}
          {before.length > 0 && (
            <section>
              <h2>Earlier in this time</h2>
              <ul class="findings">
                {before.map((other) => (
                  <li key={other.code}>
                    <Severity severity={other.severity} code={other.code} /> <b class="code">{other.code}</b>{" "}
                    <span class="quiet">
                      until {moment(other.until_unix_ms)}, {other.windows} {other.windows === 1 ? "window" : "windows"}
                    </span>{" "}
                    {other.summary}
                  </li>
                ))}
              </ul>
            </section>
          )}
        </div>
      )}
      {diagnosis.coverage && <Coverage coverage={diagnosis.coverage} windowS={diagnosis.window_s} />}
    </article>
  );
}

/** The flame graph of the classes and the processes that the verdict is about, of the time in which it holds. */
function Proof({ constraint, found, place }: { constraint: Constraint; found?: Finding; place: Place }) {
  const host = place.params.host ?? "";
  const classes = constraint.shows_in;
  const names = useMemo(() => [...new Set([...(found?.culprits ?? []), ...(found?.processes ?? [])])], [found]);
  const isAll = place.params.all === "true";
  const matchers = [is("host", host)];
  if (!isAll && classes.length) matchers.push(oneOf("class", classes));
  else matchers.push({ label: "class", operator: "!=", value: "idle" });
  if (!isAll && names.length) matchers.push(oneOf("process", names));
  const query = selector("wall", matchers);
  // Whole seconds, and the same while what is asked for is the same: a window later it is no other proof.
  const asks = useMemo(() => {
    const fromMs = Math.max(constraint.since_unix_ms, constraint.until_unix_ms - PROOF_MS);
    return { query, from: Math.floor(fromMs / 1000).toFixed(0), until: Math.ceil(constraint.until_unix_ms / 1000).toFixed(0), by: "process" };
  }, [query, constraint.since_unix_ms]);
  const asked = useAnswer<FlameAnswer>(url("/flamegraph", asks));
  const graph = useMemo(() => asked.answer && read(asked.answer), [asked.answer]);
  const shown = shownBy({ show: "flame", ...place.params });
  const proof = useMemo(() => graph && provedBy(graph, found?.functions ?? [], names), [graph, found, names]);
  return (
    <section aria-labelledby="proof">
      <h2 id="proof">
        The proof{" "}
        <span class="quiet">
          {isAll ? "all threads that are not idle" : `${classes.length ? classes.join(", ") : "all but idle"} ${names.length ? `of ${names.join(", ")}` : ""}`}
          {`, ${moment(Number(asks.from) * 1000)} to ${moment(Number(asks.until) * 1000)}`}
        </span>{" "}
        <button type="button" class="link" onClick={() => change({ all: isAll ? undefined : "true", zoom: undefined })}>
          {isAll ? "Only the proof" : "All threads"}
        </button>{" "}
        <Link view="/explore" params={asks}>
          Explore
        </Link>
      </h2>
      {found?.shown_by && <p class="quiet">{found.shown_by}</p>}
      <Answered asked={asked} what="The flame graph">
        {() =>
          graph && graph.parent.length > 1 ? (
            <FlamePanel graph={graph} label={`Flame graph of ${query}`} shown={shown} onChange={(next) => change(next as Params, true)} file={asks} proof={proof} gaps={<Gaps query={query} from={asks.from} until={asks.until} />} />
          ) : (
            <p class="quiet">No samples of these classes and processes are stored of this time.</p>
          )
        }
      </Answered>
    </section>
  );
}

/** As much of a process's time is worth being shown alone. */
const WORTH = 0.3;

/** The node that shows it: a function that the verdict names in the process that it names first, or that process; else all. */
function provedBy(graph: Graph, functions: string[], processes: string[]): number {
  for (const name of processes.slice(0, 1)) {
    const process = widestOf(graph, name);
    if (process === undefined) continue;
    for (const wanted of functions) {
      const node = widestOf(graph, wanted, process);
      if (node !== undefined && graph.width[node] >= WORTH * graph.width[process]) return node;
    }
    if (graph.width[process] >= WORTH) return process;
  }
  return 0;
}
