// Any selection of samples: over time, as a flame graph, and as a table.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Decomposition } from "../api/types";
import { StackedTime } from "../charts/stacked";
import { read, type FlameAnswer } from "../flame/graph";
import { Choice, FlamePanel, shownBy } from "../flame/panel";
import { Gaps } from "../parts/gaps";
import { Link } from "../parts/link";
import { QueryField } from "../parts/query";
import { Answered } from "../parts/states";
import { split, valueOf } from "../selector";
import { lengthMs, stepFor } from "../time";
import { change, range, type Params, type Place } from "../url";

/** Types that are times and have classes. */
const OF_TIME = new Set(["wall", "cpu", "offcpu", "off-cpu", "blocked", "queue", "run-queue", "io", "memory", "lock", "net", "wait", "idle"]);
export const USUAL_QUERY = 'wall{class!="idle"}';

/** What is profiled on demand to see more of a selection: what its labels name. */
function target(matchers: string): Params {
  const [host, namespace, pod, container, process] = ["host", "namespace", "pod", "container", "process"].map((label) => valueOf(matchers, label));
  if (namespace && pod) return { host, what: "pod", which: `${namespace}/${pod}` };
  if (container) return { host, what: "container", which: container };
  return process ? { host, what: "pid", which: process } : { host };
}

export function Explore({ place }: { place: Place }) {
  const { from, until } = range(place.params);
  const query = place.params.query ?? USUAL_QUERY;
  const by = place.params.by;
  const { type } = split(query);
  const step = stepFor(lengthMs(from, until));
  const asks = { query, from, until, by };
  const flame = useAnswer<FlameAnswer>(url("/flamegraph", { ...asks, class: place.params.class }));
  const time = useAnswer<Decomposition>(OF_TIME.has(type) ? url("/decomposition", { query, from, until, step }) : undefined);
  const graph = useMemo(() => flame.answer && read(flame.answer), [flame.answer]);
  const shown = shownBy(place.params);
  return (
    <div class="explore">
      <h1 class="visually-hidden">Explore</h1>
      <div class="asked">
        <QueryField query={query} from={from} until={until} label="Query" onChange={(query) => change({ query: query === USUAL_QUERY ? undefined : query, zoom: undefined })} />
        <Choice
          label="Group by"
          value={by ?? ""}
          options={[["", "nothing"], ["host", "host"], ["service", "service"], ["process", "process"], ["process,thread", "process and thread"], ["pod", "pod"], ...(by && !["host", "service", "process", "process,thread", "pod"].includes(by) ? [[by, by] as [string, string]] : [])]}
          onChange={(by) => change({ by, zoom: undefined })}
        />
        <Choice label="Classes" value={place.params.class ?? ""} options={[["", "as usual"], ["leaf", "innermost"], ["root", "outermost"], ["none", "none"]]} onChange={(value) => change({ class: value, zoom: undefined })} />
        <Link view="/compare" params={{ query, from, until, by }}>
          Compare
        </Link>
        <Link view="/profile" params={{ ...target(split(query).matchers), from, until }} title="What is within seconds is in recordings: bursts, and threads over time">
          Profile now
        </Link>
      </div>
      {OF_TIME.has(type) && (
        <Answered asked={time} what="Over time">
          {(answer) =>
            answer.scopes.length > 0 ? (
              <StackedTime answer={answer} label={answer.title} onRange={(from, until) => change({ from: from.toFixed(0), until: until.toFixed(0) })} />
            ) : null
          }
        </Answered>
      )}
      <Answered asked={flame} what="The flame graph">
        {() =>
          graph && graph.parent.length > 1 ? (
            <FlamePanel graph={graph} label={`Flame graph of ${query}`} shown={shown} onChange={(next) => change(next as Params, true)} file={asks} gaps={<Gaps query={query} from={from} until={until} />} />
          ) : (
            <section class="empty">
              <h2>Nothing is stored of this.</h2>
              <p>No sample of this time matches. Ask for more time, for other labels, or for {type === "wall" ? "another type" : "all time"}.</p>
            </section>
          )
        }
      </Answered>
    </div>
  );
}
