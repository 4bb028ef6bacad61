// Services by what limits them on their hosts, and by what their threads do; and the hosts that stand out among those of a service.

import { useMemo } from "preact/hooks";
import type { Asked } from "../api/client";
import type { Decomposition, Fleet, Service } from "../api/types";
import { is, selector } from "../selector";
import { Choice } from "../flame/panel";
import { measured, percent, span } from "../units";
import { change, type Params } from "../url";
import { Link } from "./link";
import { ScopeTable } from "./scopes";
import { Severity } from "./severity";
import { Answered, Notice } from "./states";

/** Hosts that stand out which are listed. */
const LISTED = 10;

/** By what services are sorted, in the address and in words. */
const COLUMNS: [key: string, text: string][] = [
  ["", "What limits it"],
  ["name", "Service"],
  ["since", "Since"],
  ["free", "CPU free"],
  ["cpu", "CPUs"],
  ["threads", "Threads"],
];

interface Props {
  time: Decomposition;
  fleet: Asked<Fleet>;
  from: string;
  until: string;
  /** Of the address: what is sought, and what is sorted by. */
  params: Params;
}

export function Services({ time, fleet, from, until, params }: Props) {
  const wanted = (params.find_service ?? "").toLowerCase();
  const sort = params.sort_services ?? "";
  const sortBy = (key: string) => change({ sort_services: key }, true);
  const known = useMemo(() => new Map((fleet.answer?.services ?? []).map((service) => [service.labels.service ?? "", service])), [fleet.answer]);
  const worst = (name: string) => known.get(name)?.constraints[0];
  const text = (name: string) => {
    const limit = worst(name);
    return `${name} ${limit ? `${limit.code} ${limit.summary} ${limit.named_hosts.join(" ")}` : ""}`.toLowerCase();
  };
  return (
    <>
      <div class="codes">
        <span class="narrow">
          <Choice label="Sort services by" value={sort} options={COLUMNS} onChange={sortBy} />
        </span>
        <label class="find">
          <span class="visually-hidden">Find services by name, constraint or host</span>
          <input type="search" placeholder="Find services" value={params.find_service ?? ""} onInput={(event) => change({ find_service: event.currentTarget.value }, true)} />
        </label>
      </div>
      <ScopeTable
        answer={time}
        what="Service"
        sort={sort}
        onSort={sortBy}
        admits={wanted ? (name) => text(name).includes(wanted) : undefined}
        name={(scope) => scope.labels.service ?? ""}
        link={(service, text) => (
          <Link view="/explore" params={{ query: selector("wall", [is("service", service), { label: "class", operator: "!=", value: "idle" }]), from, until }}>
            {text}
          </Link>
        )}
        limits={{
          told: (name) =>
            fleet.answer || fleet.error ? (
              <Limit service={known.get(name)} untilMs={fleet.answer?.until_unix_ms ?? 0} />
            ) : (
              <span class="quiet loading">is being judged</span>
            ),
          badness: (name) => worst(name)?.severity ?? 0,
          free: (name) => known.get(name)?.cpu_free_pct,
          since: (name) => worst(name)?.since_unix_ms ?? 0,
        }}
      />
      <Answered asked={fleet} what="What limits services">
        {(answer) => (
          <>
            {answer.missing.map((missing) => (
              <Notice key={missing}>{missing}</Notice>
            ))}
            <Outliers answer={answer} from={from} until={until} />
          </>
        )}
      </Answered>
    </>
  );
}

/** The service's constraint, on how many of its hosts, since when, and whom it waits for. */
function Limit({ service, untilMs }: { service?: Service; untilMs: number }) {
  if (!service) return <span class="quiet">not judged</span>;
  const [limit] = service.constraints;
  const of = `${service.hosts} ${service.hosts === 1 ? "host" : "hosts"}`;
  if (!limit) {
    if (service.healthy > 0) return <Severity severity={0} />;
    return service.idle > 0 ? <span class="quiet">idle</span> : <Severity severity={0} code="unknown" />;
  }
  const since = limit.since_unix_ms > 0 ? `, for ${limit.since_is_earlier ? "more than " : ""}${span(untilMs - limit.since_unix_ms)}` : "";
  const [behind] = [...limit.waits_for].reverse();
  return (
    <>
      <Severity severity={limit.severity} code={limit.code} /> <b class="code">{limit.code}</b>{" "}
      <span class="quiet" title={limit.named_hosts.join(", ")}>{`on ${limit.hosts} of ${of} (${percent(limit.share_of_hosts)})${since}`}</span>
      <div class="summary">{limit.summary}</div>
      {behind && <div class="summary">{`behind it: ${behind.labels.service ?? behind.address}${behind.code ? `, limited by ${behind.code}` : ""}`}</div>}
      {limit.next_step && limit.severity > 1 && <div class="next">→ {limit.next_step}</div>}
    </>
  );
}

/** Hosts that differ from those of the same service. */
function Outliers({ answer, from, until }: { answer: Fleet; from: string; until: string }) {
  if (answer.outliers.length === 0) return null;
  return (
    <>
      <h3>Hosts that differ from others of the same service</h3>
      <ul class="findings">
        {answer.outliers.slice(0, LISTED).map((outlier, at) => (
          <li key={at}>
            <Link view="/verdict" params={{ host: outlier.host, from, until }}>
              {outlier.host}
            </Link>
            {`, of ${outlier.hosts} of ${outlier.among.service ?? "a service"}: `}
            {outlier.code && <b class="code">{outlier.code} </b>}
            {outlier.differences.map((one) => `${one.name} ${measured(one.value, one.unit)}, ${measured(one.median, one.unit)} elsewhere`).join("; ")}
          </li>
        ))}
      </ul>
      {answer.outliers.length > LISTED && <p class="quiet">{`and ${answer.outliers.length - LISTED} more`}</p>}
    </>
  );
}
