// The first view: what limits the fleet, which hosts, since when, and what to do.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Decomposition, Fleet, Host, Overview as Answer } from "../api/types";
import { SILENT_MS } from "../parts/gaps";
import { Choice } from "../flame/panel";
import { Link } from "../parts/link";
import { QueryField } from "../parts/query";
import { Services } from "../parts/services";
import { level, Severity } from "../parts/severity";
import { Answered, Notice, Problem } from "../parts/states";
import { Strip } from "../parts/strip";
import { NOT_IDLE } from "../parts/threadtime";
import { and, split } from "../selector";
import { lengthMs, stepFor, timeMs } from "../time";
import { count, measured, moment, percent, span } from "../units";
import { change, range, type Place } from "../url";

/** How often it is asked anew: as often as windows come. */
const EVERY_MS = 10_000;

/** By what hosts are sorted: columns, of which those after the first two are numbers. */
const COLUMNS: [key: string, text: string][] = [
  ["severity", "What limits it"],
  ["host", "Host"],
  ["share", "Takes"],
  ["since", "Since"],
  ["cpu", "CPU free"],
];

/** What limits services is what limits them at the end of the time: so much of it is looked at. It is more work, and asked for less often. */
const NEWEST_S = 600;
const FLEET_EVERY_MS = 60_000;

/** From when on the newest part of a time is. */
function newest(from: string, until: string): string {
  if (lengthMs(from, until) <= NEWEST_S * 1000) return from;
  return until === "now" ? `now-${NEWEST_S}s` : (timeMs(until) / 1000 - NEWEST_S).toFixed(0);
}

/** What a host has of its labels beside its name. */
function labelText(host: Host): string {
  return Object.entries(host.labels)
    .filter(([name]) => name !== "host")
    .map(([name, value]) => `${name}=${value}`)
    .join(" ");
}

const nameOf = (host: Host) => host.labels.host ?? "(no name)";

export function Overview({ place }: { place: Place }) {
  const { from, until } = range(place.params);
  const isNow = until === "now";
  const { query } = place.params;
  const asked = useAnswer<Answer>(url("/overview", { query, from, until }), isNow ? EVERY_MS : undefined);
  // Hosts come first: what takes the collector longer does not take its CPUs from them.
  const after = (address: string) => (asked.answer || asked.error ? address : undefined);
  const step = stepFor(lengthMs(from, until));
  const ofThreads = `wall{${and(split(query ?? "{}").matchers, NOT_IDLE)}}`;
  const services = useAnswer<Decomposition>(after(url("/decomposition", { query: ofThreads, by: "service", limit: "40", from, until, step })), isNow ? FLEET_EVERY_MS : undefined);
  const fleet = useAnswer<Fleet>(after(url("/fleet", { query, by: "service", limit: "40", from: newest(from, until), until })), isNow ? FLEET_EVERY_MS : undefined);
  return (
    <div class="overview">
      <div class="asked">
        <span class="quiet">Only</span>
        <QueryField query={query ?? "{}"} from={from} until={until} label="Only these" isOfLabels onChange={(query) => change({ query: query === "{}" ? undefined : query })} />
      </div>
      <Answered asked={asked} what="What limits the fleet">
        {(answer) => <Hosts answer={answer} place={place} isNow={isNow} />}
      </Answered>
      <section aria-labelledby="services">
        <h2 id="services">Services by what limits them, and what their threads do</h2>
        <Answered asked={services} what="Time by service">
          {(answer) => <Services time={answer} fleet={fleet} from={from} until={until} params={place.params} />}
        </Answered>
      </section>
    </div>
  );
}

/** One sentence for the whole fleet. */
function headline(hosts: Host[]): { text: string; severity: number } {
  const limited = hosts.filter((host) => host.verdict?.is_constraint && host.verdict.severity > 1);
  if (hosts.length === 0) return { text: "No host is known yet.", severity: 0 };
  const judged = hosts.filter((host) => host.verdict);
  if (judged.length === 0) return { text: "Nothing was diagnosed in this time.", severity: 0 };
  if (limited.length === 0) {
    const unknown = judged.filter((host) => host.verdict!.code === "unknown").length;
    if (unknown > 0) return { text: `No constraint stands out; of ${unknown} of ${judged.length} hosts it is not known.`, severity: 1 };
    return { text: judged.length === 1 ? "Healthy: nothing limits the host." : `Healthy: nothing limits any of ${judged.length} hosts.`, severity: 0 };
  }
  const codes = new Map<string, number>();
  for (const host of limited) codes.set(host.verdict!.code, (codes.get(host.verdict!.code) ?? 0) + 1);
  const [code, hostCount] = [...codes].sort((a, b) => b[1] - a[1])[0];
  const severity = Math.max(...limited.map((host) => host.verdict!.severity));
  if (judged.length === 1) return { text: `${nameOf(limited[0])}: ${limited[0].verdict!.summary}.`, severity };
  const most = codes.size === 1 ? code : `mostly ${code} (${hostCount})`;
  return { text: `${limited.length} of ${judged.length} hosts are limited: ${most}.`, severity };
}

function Hosts({ answer, place, isNow }: { answer: Answer; place: Place; isNow: boolean }) {
  const { hosts } = answer;
  const wanted = (place.params.find ?? "").toLowerCase();
  const code = place.params.code;
  const sort = place.params.sort ?? "severity";
  const shown = useMemo(() => {
    const text = (host: Host) => `${nameOf(host)} ${labelText(host)} ${host.verdict?.code ?? ""} ${host.verdict?.summary ?? ""}`.toLowerCase();
    const kept = hosts.filter((host) => (!wanted || text(host).includes(wanted)) && (!code || host.verdict?.code === code));
    const by: Record<string, (a: Host, b: Host) => number> = {
      host: (a, b) => nameOf(a).localeCompare(nameOf(b)),
      since: (a, b) => (b.verdict?.since_unix_ms ?? 0) - (a.verdict?.since_unix_ms ?? 0),
      share: (a, b) => (b.verdict?.share ?? -1) - (a.verdict?.share ?? -1),
      cpu: (a, b) => (b.cpu_pct ?? -1) - (a.cpu_pct ?? -1),
    };
    return by[sort] ? [...kept].sort(by[sort]) : kept;
  }, [hosts, wanted, code, sort]);
  const codes = useMemo(() => {
    const found = new Map<string, { hosts: number; severity: number; since: number }>();
    for (const { verdict } of hosts) {
      if (!verdict) continue;
      const entry = found.get(verdict.code) ?? { hosts: 0, severity: 0, since: Infinity };
      found.set(verdict.code, { hosts: entry.hosts + 1, severity: Math.max(entry.severity, verdict.severity), since: Math.min(entry.since, verdict.since_unix_ms) });
    }
    return [...found].sort((a, b) => b[1].severity - a[1].severity || b[1].hosts - a[1].hosts);
  }, [hosts]);
  const silent = isNow ? hosts.filter((host) => host.kernel && Date.now() - host.last_window_unix_ms > SILENT_MS) : [];
  const said = headline(hosts);
  if (hosts.length === 0 && place.params.query) {
    return (
      <section class="empty">
        <h1>No host has these labels.</h1>
        <p class="quiet">Hosts have the labels that their agents were given, and their names. Services below may have others.</p>
      </section>
    );
  }
  if (hosts.length === 0) {
    return (
      <section class="empty">
        <h1>{said.text}</h1>
        <p>Have an agent stream to this collector: </p>
        <pre>chokepoint agent --collector http://COLLECTOR:4040</pre>
        <p class="quiet">Its first window is here some ten seconds later, and this page then shows it.</p>
      </section>
    );
  }
  const { from, until } = place.params;
  const sortBy = (key: string) => change({ sort: key === "severity" ? undefined : key }, true);
  const head = (key: string, text: string, number = false) => (
    <th key={key} scope="col" class={number ? "number" : undefined} aria-sort={sort === key ? "descending" : "none"}>
      <button type="button" class="sort" onClick={() => sortBy(key)}>
        {text}
      </button>
    </th>
  );
  return (
    <>
      <h1 class={`headline ${level(said.severity).name}`}>{said.text}</h1>
      {silent.length > 0 && <Problem>{`Silent for more than ${SILENT_MS / 1000} s: ${silent.slice(0, 5).map(nameOf).join(", ")}${silent.length > 5 ? ` and ${silent.length - 5} more` : ""}. What is told of them is old.`}</Problem>}
      {answer.left_out > 0 && <Notice>{`${answer.left_out} more hosts are not shown: search by a label, or ask for fewer.`}</Notice>}
      {answer.told_from_unix_ms > answer.from_unix_ms && <Notice>{`More was diagnosed in this time than one answer holds: what limited hosts before ${moment(answer.told_from_unix_ms)} is not shown. Ask for less time, or for fewer hosts.`}</Notice>}
      <div class="codes" role="group" aria-label="Constraints">
        {codes.map(([name, entry]) => (
          <button key={name} type="button" class="code-count" aria-pressed={code === name} onClick={() => change({ code: code === name ? undefined : name }, true)}>
            <Severity severity={entry.severity} code={name} /> <b>{name}</b> <span class="number">{`${entry.hosts} of ${hosts.length}`}</span>
          </button>
        ))}
        <span class="narrow">
          <Choice label="Sort by" value={sort} options={COLUMNS} onChange={sortBy} />
        </span>
        <label class="find">
          <span class="visually-hidden">Find hosts by name, label or constraint</span>
          <input type="search" placeholder="Find hosts" value={place.params.find ?? ""} onInput={(event) => change({ find: event.currentTarget.value }, true)} />
        </label>
      </div>
      <div class="scroll" tabIndex={0} role="region" aria-label="Hosts">
        <table class="data hosts">
          <thead>
            <tr>
              {COLUMNS.map(([key, text], at) => head(key, text, at > 1))}
              <th scope="col">{`${moment(answer.from_unix_ms)} to ${moment(answer.until_unix_ms)}`}</th>
            </tr>
          </thead>
          <tbody>
            {shown.map((host) => (
              <HostRow key={nameOf(host)} host={host} answer={answer} params={{ from, until }} />
            ))}
          </tbody>
        </table>
      </div>
      {shown.length === 0 && <p class="quiet">No host matches.</p>}
    </>
  );
}

function HostRow({ host, answer, params }: { host: Host; answer: Answer; params: { from?: string; until?: string } }) {
  const { verdict } = host;
  const name = nameOf(host);
  const to = { host: name, ...params };
  const labels = labelText(host);
  return (
    <tr>
      <td class="what">
        {verdict ? (
          <>
            <Link view="/verdict" params={to}>
              <Severity severity={verdict.severity} code={verdict.code} /> <b>{verdict.code}</b>
            </Link>
            <div class="summary">{verdict.summary}</div>
            {verdict.next_step && verdict.severity > 1 && <div class="next">→ {verdict.next_step}</div>}
          </>
        ) : (
          <span class="quiet">nothing was diagnosed</span>
        )}
      </td>
      <td>
        <Link view="/host" params={to}>
          {name}
        </Link>
        {labels && <div class="quiet labels">{labels}</div>}
        {host.dropped_batches > 0 && <div class="bad">{`${count(host.dropped_batches)} windows lost by its agent`}</div>}
      </td>
      <td class="number" data-label="takes">
        {verdict?.is_constraint ? percent(verdict.share) : ""}
      </td>
      <td class="number" data-label="for" title={verdict ? moment(verdict.since_unix_ms) : undefined}>
        {verdict ? span(answer.until_unix_ms - verdict.since_unix_ms) : ""}
      </td>
      <td class="number" data-label="CPU free">
        {host.cpu_pct === undefined ? "" : measured(Math.max(0, 100 - host.cpu_pct), "%")}
      </td>
      <td class="history">
        <Strip spans={host.history} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} label={`What limited ${name}`} />
      </td>
    </tr>
  );
}
