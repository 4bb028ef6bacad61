// One host: its resources by the USE method, where its threads' time went, what was lost of it, and what its agent costs.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Decomposition, Overview, Signal, Signals } from "../api/types";
import { StackedTime } from "../charts/stacked";
import { Spark } from "../charts/spark";
import { Legend } from "../parts/legend";
import { Link } from "../parts/link";
import { Severity } from "../parts/severity";
import { Answered, Notice } from "../parts/states";
import { Strip } from "../parts/strip";
import { is, selector } from "../selector";
import { lengthMs, stepFor } from "../time";
import { measured, moment, span, whole } from "../units";
import { address, change, go, range, type Place } from "../url";
import { LatencyMaps, RetransmitPeers } from "./latencies";

const KINDS: [string, string][] = [
  ["utilization", "Utilization"],
  ["saturation", "Saturation"],
  ["errors", "Errors"],
];
const RESOURCES: [string, string][] = [
  ["cpu", "CPU"],
  ["memory", "Memory"],
  ["block", "Block devices"],
  ["filesystem", "File systems"],
  ["network", "Network"],
  ["tcp", "TCP"],
  ["udp", "UDP"],
  ["limit", "Limits"],
  ["group", "Control groups"],
];
/** Signals of a cell, the most urgent: more are on demand. */
const SHOWN = 4;

export function HostView({ place }: { place: Place }) {
  const host = place.params.host ?? "";
  const { from, until } = range(place.params);
  const only = selector("", [is("host", host)]);
  const step = stepFor(lengthMs(from, until));
  const glance = useAnswer<Overview>(host ? url("/overview", { query: only, from, until }) : undefined);
  const signals = useAnswer<Signals>(host ? url("/signals", { query: only, from, until, step }) : undefined);
  const withIdle = place.params.idle === "true";
  const query = selector("wall", [is("host", host), ...(withIdle ? [] : [{ label: "class", operator: "!=" as const, value: "idle" }])]);
  const time = useAnswer<Decomposition>(host ? url("/decomposition", { query, from, until, step }) : undefined);
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
              {seen.dropped_batches > 0 && <Notice>{`Its agent lost ${whole(seen.dropped_batches)} windows while this collector was away: what is shown has gaps.`}</Notice>}
              <Strip spans={seen.history} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} label={`What limited ${host}`} />
            </>
          ) : (
            <p>No such host is known.</p>
          )
        }
      </Answered>
      <section>
        <h2>
          Where its threads' time goes{" "}
          <label class="check">
            <input type="checkbox" checked={withIdle} onChange={() => change({ idle: withIdle ? undefined : "true" }, true)} /> with idle
          </label>
        </h2>
        <Answered asked={time} what="Thread time">
          {(answer) =>
            answer.scopes.length ? (
              <>
                <StackedTime answer={answer} label="Thread time" onRange={(from, until) => go(address("/explore", { query, from: from.toFixed(0), until: until.toFixed(0) }))} />
                <Legend entries={answer.classes} />
              </>
            ) : (
              <p class="quiet">No thread time is stored of this time.</p>
            )
          }
        </Answered>
      </section>
      <LatencyMaps query={only} from={from} until={until} step={step} />
      <RetransmitPeers query={only} from={from} until={until} />
      <Answered asked={signals} what="Signals">
        {(answer) => <Resources answer={answer} />}
      </Answered>
    </div>
  );
}

const worst = (signal: Signal) => Math.max(0, ...signal.values.map((value) => value.level));
const last = (signal: Signal) => signal.values[signal.values.length - 1];

function Resources({ answer }: { answer: Signals }) {
  const { rows, own, others } = useMemo(() => {
    const known = (kind: string, resource: string) =>
      answer.signals
        .filter((signal) => signal.kind === kind && signal.resource === resource && signal.values.length > 0)
        .sort((a, b) => worst(b) - worst(a) || last(b).level - last(a).level || relative(b) - relative(a));
    return {
      rows: RESOURCES.map(([key, name]) => ({ key, name, cells: KINDS.map(([kind]) => known(kind, key)) })).filter((row) => row.cells.some((cell) => cell.length > 0)),
      own: answer.signals.filter((signal) => signal.name.startsWith("agent.") && signal.values.length > 0),
      others: answer.signals.filter((signal) => !signal.resource && !signal.name.startsWith("agent.") && signal.values.length > 0),
    };
  }, [answer]);
  if (rows.length === 0 && own.length === 0) return <p class="quiet">No signals are stored of this time.</p>;
  return (
    <>
      <section>
        <h2>Resources: utilization, saturation, errors</h2>
        <div class="scroll" tabIndex={0} role="region" aria-label="Resources">
          <table class="use">
            <thead>
              <tr>
                <th scope="col">Resource</th>
                {KINDS.map(([kind, name]) => (
                  <th scope="col" key={kind}>
                    {name}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {rows.map((row) => (
                <tr key={row.key}>
                  <th scope="row">{row.name}</th>
                  {row.cells.map((signals, at) => (
                    <td key={KINDS[at][0]}>
                      <Cell signals={signals} answer={answer} />
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </section>
      {own.length > 0 && (
        <section>
          <h2>The agent itself: what it costs, and what it lost</h2>
          <div class="cells">
            {own.map((signal) => (
              <Value key={`${signal.name} ${signal.labels.instance ?? ""}`} signal={signal} answer={answer} />
            ))}
          </div>
        </section>
      )}
      {others.length > 0 && (
        <section>
          <h2>Other signals</h2>
          <div class="cells">
            {others.map((signal) => (
              <Value key={`${signal.name} ${signal.labels.instance ?? ""}`} signal={signal} answer={answer} />
            ))}
          </div>
        </section>
      )}
    </>
  );
}

/** How near a signal is to its warning, else how large: to put what matters first. */
function relative(signal: Signal): number {
  const warning = signal.thresholds?.warning;
  return warning && warning > 1e-9 ? last(signal).value / warning : 0;
}

function Cell({ signals, answer }: { signals: Signal[]; answer: Signals }) {
  if (signals.length === 0) return <span class="quiet">–</span>;
  const row = (signal: Signal) => <Value key={`${signal.name} ${signal.labels.instance ?? ""}`} signal={signal} answer={answer} />;
  const rest = signals.slice(SHOWN);
  return (
    <>
      {signals.slice(0, SHOWN).map(row)}
      {rest.length > 0 && (
        <details>
          <summary>{`${rest.length} more`}</summary>
          {rest.map(row)}
        </details>
      )}
    </>
  );
}

const LEVELS = ["", "warning", "critical"];

function Value({ signal, answer }: { signal: Signal; answer: Signals }) {
  const value = last(signal);
  const high = signal.values.reduce((most, value) => Math.max(most, value.max), -Infinity);
  const level = LEVELS[worst(signal)] ?? "";
  const short = signal.name.replace(/^[a-z]+\./, "").replaceAll("_", " ");
  const instance = signal.labels.instance;
  const title = [signal.meaning, `highest ${measured(high, signal.unit)} in ${span(answer.until_unix_ms - answer.from_unix_ms)}`, limits(signal)].filter(Boolean).join("\n");
  return (
    <div class={`value ${level}`} title={title}>
      <span class="value-name">
        {short}
        {instance && <span class="quiet"> {instance}</span>}
      </span>
      <Spark values={signal.values} fromMs={answer.from_unix_ms} untilMs={answer.until_unix_ms} unit={signal.unit} />
      <b class="number">{measured(value.value, signal.unit)}</b>
      {level && <span class={`severity ${level}`}>{level === "critical" ? "▲ critical" : "◆ warning"}</span>}
    </div>
  );
}

function limits(signal: Signal): string {
  const { thresholds } = signal;
  if (!thresholds) return "";
  const critical = thresholds.critical === null || thresholds.critical > 1e300 ? "" : `, critical from ${measured(thresholds.critical, signal.unit)}`;
  return thresholds.warning < 1e-9 ? "a warning where there is any" : `warning from ${measured(thresholds.warning, signal.unit)}${critical}`;
}
