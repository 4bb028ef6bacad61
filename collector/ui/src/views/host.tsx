// One host: its resources by the USE method, where its threads' time went, what was lost of it, and what its agent costs.

import { url, useAnswer } from "../api/client";
import type { Agents, Decomposition, Overview, Signals } from "../api/types";
import { Gaps } from "../parts/gaps";
import { Link } from "../parts/link";
import { Resources } from "../parts/resources";
import { ScopeTable } from "../parts/scopes";
import { Severity } from "../parts/severity";
import { Answered, Notice } from "../parts/states";
import { Strip } from "../parts/strip";
import { NOT_IDLE, ThreadTime } from "../parts/threadtime";
import { is, selector } from "../selector";
import { lengthMs, stepFor } from "../time";
import { moment, whole } from "../units";
import { range, type Place } from "../url";
import { LatencyMaps, RetransmitPeers } from "./latencies";

export function HostView({ place }: { place: Place }) {
  const host = place.params.host ?? "";
  const { from, until } = range(place.params);
  const only = selector("", [is("host", host)]);
  const step = stepFor(lengthMs(from, until));
  const glance = useAnswer<Overview>(host ? url("/overview", { query: only, from, until }) : undefined);
  const signals = useAnswer<Signals>(host ? url("/signals", { query: only, from, until, step }) : undefined);
  if (!host) return <p class="empty">No host is named: choose one in the overview.</p>;
  const seen = glance.answer?.hosts[0];
  return (
    <div class="host">
      <h1>
        {host}{" "}
        {seen?.verdict && (
          <Link view="/verdict" params={{ host, from: place.params.from, until: place.params.until }} class="as-text">
            <Severity severity={seen.verdict.severity} code={seen.verdict.code} /> <b class="code">{seen.verdict.code}</b>
          </Link>
        )}{" "}
        <Link view="/profile" params={{ host }} class="as-text">
          Profile now
        </Link>
      </h1>
      <Answered asked={glance} what={host}>
        {(answer) =>
          seen ? (
            <>
              <p class="quiet">
                {Object.entries(seen.labels)
                  .filter(([name]) => name !== "host")
                  .map(([name, value]) => `${name}=${value}`)
                  .concat(seen.kernel ? `Linux ${seen.kernel}` : [], seen.program ? `agent ${seen.program}` : [])
                  .concat(seen.last_window_unix_ms ? `last heard of ${moment(seen.last_window_unix_ms)}` : "never heard of")
                  .join(" · ")}
              </p>
              <Gaps query={only} from={from} until={until} />
              {seen.dropped_batches > 0 && <Notice>{`Its agent lost ${whole(seen.dropped_batches)} windows while this collector was away: what is shown has gaps.`}</Notice>}
              <Strip spans={seen.history} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} label={`What limited ${host}`} />
            </>
          ) : (
            <p>No such host is known.</p>
          )
        }
      </Answered>
      <ThreadTime of={[is("host", host)]} place={place} none="No thread time is stored of this time." />
      <Pods host={host} from={from} until={until} step={step} />
      <LatencyMaps query={only} from={from} until={until} step={step} />
      <RetransmitPeers query={only} from={from} until={until} />
      <Answered asked={signals} what="Signals">
        {(answer) => <Resources answer={answer} />}
      </Answered>
      <Missing host={host} />
    </div>
  );
}

/** The pods that run on it, where there are any. */
function Pods({ host, from, until, step }: { host: string; from: string; until: string; step: string }) {
  const query = selector("wall", [is("host", host), { label: "pod", operator: "!=", value: "" }, NOT_IDLE]);
  const asked = useAnswer<Decomposition>(host ? url("/decomposition", { query, by: "namespace,pod", limit: "50", from, until, step }) : undefined);
  return (
    <Answered asked={asked} what="Pods">
      {(answer) =>
        answer.scopes.length > 0 && (
          <section>
            <h2>Pods</h2>
            <ScopeTable
              answer={answer}
              what="Pod"
              name={({ labels }) => `${labels.namespace ?? ""}/${labels.pod ?? ""}`}
              link={(name, text) => (
                <Link view="/pod" params={{ pod: name, host, from, until }}>
                  {text}
                </Link>
              )}
            />
          </section>
        )
      }
    </Answered>
  );
}

/** What the agent says is missing of its last window beside samples. */
function Missing({ host }: { host: string }) {
  const asked = useAnswer<Agents>(host ? url("/agents", {}) : undefined);
  const notes = [...new Set((asked.answer?.agents ?? []).filter((agent) => agent.labels.host === host && agent.kernel).flatMap((agent) => agent.notes ?? []))];
  if (notes.length === 0) return null;
  return (
    <section>
      <h2>
        What is missing <span class="quiet">in its last window</span>
      </h2>
      <ul class="missing">
        {notes.map((note) => (
          <li key={note}>{note}</li>
        ))}
      </ul>
    </section>
  );
}
