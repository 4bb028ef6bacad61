// Resources by the USE method: of each its utilization, saturation and errors, the most urgent first, with their levels.

import { useMemo } from "preact/hooks";
import type { Signal, Signals } from "../api/types";
import { Spark } from "../charts/spark";
import { measured, span } from "../units";

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

const worst = (signal: Signal) => Math.max(0, ...signal.values.map((value) => value.level));
const last = (signal: Signal) => signal.values[signal.values.length - 1];

export function Resources({ answer }: { answer: Signals }) {
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
