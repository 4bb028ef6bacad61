// One pod: what limits its host, where its threads' time goes and into which containers, how long they queued, and its groups' limits.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Decomposition, Overview, Signals } from "../api/types";
import { Gaps } from "../parts/gaps";
import { Link } from "../parts/link";
import { Resources } from "../parts/resources";
import { ScopeTable } from "../parts/scopes";
import { Severity } from "../parts/severity";
import { Answered, Partial } from "../parts/states";
import { Strip } from "../parts/strip";
import { NOT_IDLE, ThreadTime } from "../parts/threadtime";
import { is, selector, type Matcher } from "../selector";
import { lengthMs, stepFor } from "../time";
import { range, type Place } from "../url";
import { LatencyMap, RetransmitPeers } from "./latencies";

export function PodView({ place }: { place: Place }) {
  const { pod = "" } = place.params;
  const { from, until } = range(place.params);
  const [namespace, name] = pod.split("/", 2);
  const own = [is("namespace", namespace ?? ""), is("pod", name ?? "")];
  // Which host it is on, and the groups of its containers, are in its rows.
  const rows = useAnswer<Decomposition>(name ? url("/decomposition", { query: selector("wall", own), by: "host,cgroup", limit: "100", from, until }) : undefined);
  if (!name) return <p class="empty">No pod is named: choose one of a host's.</p>;
  return (
    <div class="host">
      <h1>
        {pod}{" "}
        <Link view="/profile" params={{ what: "pod", which: pod, host: rows.answer?.scopes[0]?.labels.host }} class="as-text">
          Profile now
        </Link>
      </h1>
      <Answered asked={rows} what={pod}>
        {(answer) =>
          answer.scopes.length === 0 ? (
            <section class="empty">
              <h2>Nothing is stored of this pod in this time.</h2>
              <p>It may have another name now: hosts list theirs. Agents know pods where they can ask the container runtime.</p>
            </section>
          ) : (
            <Pod
              pod={pod}
              own={own}
              hosts={[...new Set(answer.scopes.map(({ labels }) => labels.host).filter((host): host is string => Boolean(host)))]}
              groups={[...new Set(answer.scopes.map(({ labels }) => labels.cgroup).filter((group): group is string => Boolean(group)))]}
              place={place}
            />
          )
        }
      </Answered>
    </div>
  );
}

function Pod({ pod, own, hosts, groups, place }: { pod: string; own: Matcher[]; hosts: string[]; groups: string[]; place: Place }) {
  const { from, until } = range(place.params);
  const step = stepFor(lengthMs(from, until));
  const [host] = hosts;
  const only = selector("", own);
  const containers = useAnswer<Decomposition>(url("/decomposition", { query: selector("wall", [...own, NOT_IDLE]), by: "container", limit: "50", from, until, step }));
  const signals = useAnswer<Signals>(host ? url("/signals", { query: selector("", [is("host", host)]), from, until, step }) : undefined);
  return (
    <>
      {hosts.map((host) => (
        <HostOf key={host} host={host} from={from} until={until} />
      ))}
      <ThreadTime of={own} place={place} none="All of its threads were idle.">
        <Gaps query={only} from={from} until={until} />
      </ThreadTime>
      <section>
        <h2>Containers</h2>
        <Answered asked={containers} what="Containers">
          {(answer) => (
            <ScopeTable
              answer={answer}
              what="Container"
              name={({ labels }) => labels.container ?? ""}
              link={(container, text) => (
                <Link view="/explore" params={{ query: selector("wall", [...own, is("container", container), NOT_IDLE]), from, until }}>
                  {text}
                </Link>
              )}
            />
          )}
        </Answered>
      </section>
      <LatencyMap of="run-queue" query={only} from={from} until={until} step={step} />
      <RetransmitPeers query={only} from={from} until={until} />
      <Answered asked={signals} what="Signals of its groups">
        {(answer) => <Limits answer={answer} groups={groups} pod={pod} />}
      </Answered>
    </>
  );
}

/** The host that it is on, and what limits that. */
function HostOf({ host, from, until }: { host: string; from: string; until: string }) {
  const asked = useAnswer<Overview>(url("/overview", { query: selector("", [is("host", host)]), from, until }));
  const seen = asked.answer?.hosts[0];
  return (
    <>
      <p>
        on{" "}
        <Link view="/host" params={{ host, from, until }}>
          {host}
        </Link>
        {seen?.verdict && (
          <>
            {", limited by "}
            <Link view="/verdict" params={{ host, from, until }}>
              <Severity severity={seen.verdict.severity} code={seen.verdict.code} /> <b class="code">{seen.verdict.code}</b>
            </Link>
            {`: ${seen.verdict.summary}`}
          </>
        )}
      </p>
      <Partial what={`What limited ${host}`} of={[asked.answer]} />
      {asked.answer && seen && <Strip spans={seen.history} fromMs={asked.answer.from_unix_ms} untilMs={asked.answer.until_unix_ms} label={`What limited ${host}`} />}
    </>
  );
}

/** Whether a group is a container's, is within one, or is the pod's, which holds its containers'. */
function isOf(group: string, containers: string[]): boolean {
  return containers.some((container) => group === container || group.startsWith(`${container}/`) || group === container.replace(/\/[^/]+$/, ""));
}

function Limits({ answer, groups, pod }: { answer: Signals; groups: string[]; pod: string }) {
  const own = useMemo(() => ({ ...answer, signals: answer.signals.filter(({ resource, labels }) => resource === "group" && isOf(labels.instance ?? "", groups)) }), [answer, groups]);
  if (own.signals.length === 0) return <p class="quiet">{`No signal is stored of the control groups of ${pod}: agents tell those that use most, or are near a limit.`}</p>;
  return <Resources answer={own} />;
}
