// What is known to be missing of a selection: samples that agents lost, agents that are silent, and what they had given up.

import { useMemo } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import type { Agents, Signals } from "../api/types";
import { admits, onlyOf, split } from "../selector";
import { lengthMs, timeMs } from "../time";
import { moment, whole } from "../units";
import { Notice, Partial } from "./states";

/** An agent that was silent for so long is told so: some windows, and time for the network. */
export const SILENT_MS = 90_000;
/** Hosts, causes and sentences that are named; the others are counted. */
const NAMED = 3;

interface Props {
  query: string;
  from: string;
  until: string;
  /** Which of several selections it is. */
  of?: string;
}

const listed = (names: string[]) => `${names.slice(0, NAMED).join(", ")}${names.length > NAMED ? ` and ${names.length - NAMED} more` : ""}`;

export function Gaps({ query, from, until, of }: Props) {
  const side = of ? `${of}: ` : "";
  const agents = useAnswer<Agents>(url("/agents", {}));
  const known = agents.answer?.agents;
  // Agents are of hosts: of what else the query says, nothing is lost apart.
  const ofHosts = useMemo(() => known && onlyOf(split(query).matchers, new Set(known.flatMap((agent) => Object.keys(agent.labels)))), [known, query]);
  const lost = useAnswer<Signals>(ofHosts === undefined ? undefined : url("/signals", { query: `agent.lost_samples{${ofHosts}}`, from, until }));
  if (!known || ofHosts === undefined) return null;
  const [fromMs, untilMs] = [timeMs(until) - lengthMs(from, until), timeMs(until)];
  const asked = known.filter((agent) => admits(ofHosts, agent.labels));
  const name = (labels: Record<string, string>) => labels.host ?? "(no name)";
  // Other programs that send profiles are no agents, and come and go.
  const silent = asked.filter((agent) => agent.kernel && agent.last_window_unix_ms > fromMs && agent.last_window_unix_ms < untilMs - SILENT_MS);
  const limited = asked.filter((agent) => agent.given_up?.length && agent.last_window_unix_ms > fromMs && agent.last_window_unix_ms < untilMs + SILENT_MS);
  const signals = (lost.answer?.signals ?? []).filter((signal) => signal.values.some((value) => value.value > 0));
  const hosts = [...new Set(signals.map((signal) => name(signal.labels)))];
  const causes = [...new Set(signals.map((signal) => signal.labels.instance).filter(Boolean))];
  const most = signals.reduce((most, signal) => signal.values.reduce((most, value) => Math.max(most, value.max), most), 0);
  return (
    <>
      <Partial what={`${side}What was lost`} of={[agents.answer, lost.answer]} />
      {hosts.length > 0 && <Notice>{`${side}Samples were lost in this time on ${listed(hosts)}, up to ${whole(most)} of a window${causes.length ? ` (${listed(causes)})` : ""}: what is shown is less than what happened.`}</Notice>}
      {lost.error && lost.error.status !== 401 && <Notice>{`${side}Whether samples were lost is not known: ${lost.error.message}`}</Notice>}
      {silent.length > 0 && <Notice>{`${side}Nothing is stored of the end of this time: ${listed(silent.map((agent) => `${name(agent.labels)} since ${moment(agent.last_window_unix_ms)}`))}.`}</Notice>}
      {limited.length > 0 && <Notice>{`${side}To stay within their budget, agents gave up some of it: ${listed(limited.map((agent) => `${name(agent.labels)}: ${agent.given_up!.join(", ")}`))}.`}</Notice>}
    </>
  );
}
