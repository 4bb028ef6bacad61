// How long things took over time, as heatmaps: of how many which length. And whom a host had to send again to.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Latencies, Retransmits } from "../api/types";
import { Heat, type Cell } from "../charts/heat";
import { Choice } from "../flame/panel";
import { Answered, Notice } from "../parts/states";
import { count, duration, moment, percent, whole } from "../units";
import { change, usePlace } from "../url";

/** Peers that are listed. */
const LISTED = 20;

interface Props {
  query: string;
  from: string;
  until: string;
}

const OF = {
  "run-queue": { name: "Run-queue latency", about: "how long threads that could run waited for a CPU", none: "No latency is stored of this time." },
  disk: { name: "Disk latency", about: "how long requests took, from their queue to their end", none: "No request is stored of this time." },
} as const;

export function LatencyMaps(props: Props & { step: string }) {
  return (
    <div class="columns">
      <LatencyMap of="run-queue" {...props} />
      <LatencyMap of="disk" {...props} />
    </div>
  );
}

export function LatencyMap({ of, query, from, until, step }: Props & { of: keyof typeof OF; step: string }) {
  const { name, about } = OF[of];
  return (
    <section aria-label={name}>
      <h2>
        {name} <span class="quiet">{about}</span>
      </h2>
      <Instances of={of} address={url("/latencies", { query, of, from, until, step })} />
    </section>
  );
}

function Instances({ of, address }: { of: keyof typeof OF; address: string }) {
  const { name, none } = OF[of];
  const asked = useAnswer<Latencies>(address);
  const wanted = usePlace().params[of];
  return (
    <Answered asked={asked} what={name}>
      {(answer) => {
        const instances = answer.instances.filter((one) => one.times.length > 0);
        if (instances.length === 0) return <p class="quiet">{none}</p>;
        const chosen = instances.find((one) => one.instance === wanted) ?? instances[0];
        return (
          <>
            {instances.length > 1 && <Choice label="of" value={chosen.instance} options={instances.map(({ instance }): [string, string] => [instance, instance || "all"])} onChange={(instance) => change({ [of]: instance }, true)} />}
            <OneMap name={`${name} of ${chosen.instance || "all"}`} bounds={answer.bounds} instance={chosen} />
          </>
        );
      }}
    </Answered>
  );
}

/** Columns of a map at most: more than a screen has room for. */
const MOST_COLUMNS = 2000;

/** The steps from the first to the last, also those of which nothing is stored. */
function evenly(times: number[]): number[] {
  const step = times.reduce((least, time, at) => (at > 0 ? Math.min(least, time - times[at - 1]) : least), Infinity);
  const count = Number.isFinite(step) && step > 0 ? Math.round((times[times.length - 1] - times[0]) / step) + 1 : times.length;
  return count > MOST_COLUMNS || count <= times.length ? times : Array.from({ length: count }, (_, at) => times[0] + at * step);
}

function OneMap({ name, bounds, instance }: { name: string; bounds: Latencies["bounds"]; instance: Latencies["instances"][number] }) {
  // Only buckets that have something, and those between them.
  const { columns, times, low, rows } = useMemo(() => {
    const used = bounds.map((_, at) => instance.counts.some((counts) => (counts[at] ?? 0) > 0));
    const low = Math.max(0, used.indexOf(true));
    const rows = Math.max(1, used.lastIndexOf(true) - low + 1);
    const known = new Map(instance.times.map((time, at) => [time, instance.counts[at] ?? []]));
    const times = evenly(instance.times);
    const columns = times.map((time) => {
      const counts = known.get(time);
      return counts ? Array.from({ length: rows }, (_, row) => counts[low + row] ?? 0) : [];
    });
    return { columns, times, low, rows };
  }, [bounds, instance]);
  const upper = (row: number) => {
    const bound = bounds[low + row];
    return bound === null || bound === undefined ? "more" : duration(bound);
  };
  const lower = (row: number) => (low + row === 0 ? "0" : duration(bounds[low + row - 1] ?? 0));
  const told = ([column, row]: Cell, value = 0) => {
    const all = columns[column]?.reduce((sum, each) => sum + each, 0) ?? 0;
    return `${moment(times[column] ?? 0)}: ${count(value)} of ${lower(row)} to ${upper(row)}${all ? `, ${percent(value / all)}` : ""}`;
  };
  return (
    <Heat
      columns={columns}
      rows={rows}
      label={name}
      height={Math.min(200, Math.max(70, rows * 9))}
      told={told}
      axes={{ low: lower(0), high: upper(rows - 1), first: moment(times[0] ?? 0), last: moment(times[times.length - 1] ?? 0) }}
    />
  );
}

export function RetransmitPeers({ query, from, until }: Props) {
  const asked = useAnswer<Retransmits>(url("/retransmits", { query, from, until }));
  return (
    <section aria-label="Retransmits by peer">
      <h2>
        Retransmits by peer <span class="quiet">TCP segments that had to be sent again</span>
      </h2>
      <Answered asked={asked} what="Retransmits">
        {(answer) => {
          if (answer.peers.length === 0 && answer.others === 0) return <p class="quiet">None: nothing had to be sent again in this time.</p>;
          const peers = [...answer.peers].sort((a, b) => b.count - a.count);
          const rest = answer.others + peers.slice(LISTED).reduce((sum, peer) => sum + peer.count, 0);
          return (
            <>
              <div class="scroll" tabIndex={0} role="region" aria-label="Peers">
                <table class="data">
                  <thead>
                    <tr>
                      <th scope="col" class="number">Segments</th>
                      <th scope="col">From</th>
                      <th scope="col" class="wide">To</th>
                    </tr>
                  </thead>
                  <tbody>
                    {peers.slice(0, LISTED).map((peer) => (
                      <tr key={`${peer.local} ${peer.remote}`}>
                        <td class="number">{whole(peer.count)}</td>
                        <td class="code">{peer.local}</td>
                        <td class="code">{peer.remote}</td>
                      </tr>
                    ))}
                  </tbody>
                </table>
              </div>
              {rest > 0 && <Notice>{`${whole(rest)} more segments went to peers that are not listed.`}</Notice>}
            </>
          );
        }}
      </Answered>
    </section>
  );
}
