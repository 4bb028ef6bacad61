// What a diagnosis says: who it is about, the numbers for and against it, what to do, where time went, and what it rests on.

import type { Diagnosis, Fact, Finding } from "../api/types";
import { classOf, meaning } from "../classes";
import { duration, measured, percent } from "../units";
import { change, type Params } from "../url";
import { ClassBar, ordered } from "./bar";
import { Notice } from "./states";

/** With a capital letter and a full stop. */
export function sentence(text: string): string {
  return text ? `${text[0].toUpperCase()}${text.slice(1)}${/[.!?]$/.test(text) ? "" : "."}` : text;
}

export function Who({ found }: { found: Finding }) {
  const lists: [string, string[] | undefined][] = [
    ["caused by", found.culprits],
    ["hits", found.processes],
    // What stands for callers that nobody knows is no function.
    ["in", found.functions?.filter((name) => !name.startsWith("["))],
  ];
  return (
    <>
      <dl class="who">
        {lists
          .filter(([, names]) => names?.length)
          .map(([what, names]) => (
            <div key={what}>
              <dt>{what}</dt>
              <dd class="code">{names!.join(", ")}</dd>
            </div>
          ))}
      </dl>
      {(found.path?.length ?? 0) > 1 && (
        <ol class="path" aria-label="From the wait that is seen to what is behind it">
          {found.path!.map((step, at) => (
            <li key={at} class="code">
              {step}
            </li>
          ))}
        </ol>
      )}
    </>
  );
}

function FactRows({ facts, sign }: { facts: Fact[]; sign: string }) {
  return (
    <>
      {facts.map((fact, at) => (
        <tr key={at}>
          <td class={sign === "+" ? "sign for" : "sign against"}>
            <span class="visually-hidden">{sign === "+" ? "for it" : "against it"}</span>
            <span aria-hidden="true">{sign}</span>
          </td>
          <td class="number">{measured(fact.value, fact.unit)}</td>
          <td>
            {fact.what} <span class="quiet source">{fact.source}</span>
          </td>
        </tr>
      ))}
    </>
  );
}

export function Facts({ found }: { found: Finding }) {
  return (
    <section>
      <h2>Evidence</h2>
      <table class="facts">
        <tbody>
          <FactRows facts={found.evidence ?? []} sign="+" />
          <FactRows facts={found.counter_evidence ?? []} sign="−" />
        </tbody>
      </table>
      {!found.counter_evidence?.length && <p class="quiet">Nothing that was measured speaks against it.</p>}
    </section>
  );
}

export function Steps({ found }: { found: Finding }) {
  return (
    <section>
      <h2>What to do</h2>
      {(found.next_steps?.length ?? 0) > 0 ? (
        <ol class="steps">
          {found.next_steps!.map((step, at) => (
            <li key={at}>
              {step.action} <span class="quiet">{`impact ${step.impact}, effort ${step.effort}, risk ${step.risk}`}</span>
            </li>
          ))}
        </ol>
      ) : (
        <p class="quiet">Nothing has to be done.</p>
      )}
      {found.hypothesis && (
        <>
          <h3>Hypothesis</h3>
          <p>{found.hypothesis}</p>
        </>
      )}
      {found.experiment && (
        <>
          <h3>The test that would prove it wrong</h3>
          <p>{found.experiment}</p>
        </>
      )}
    </section>
  );
}

export function TimeBar({ diagnosis, params }: { diagnosis: Diagnosis; params: Params }) {
  const withIdle = params.idle === "true";
  const parts = Object.entries(diagnosis.decomposition ?? {}).map(([name, weight]) => ({ name, weight }));
  const shown = ordered(parts.filter((part) => withIdle || classOf(part.name).group !== "idle"));
  const all = shown.reduce((sum, part) => sum + part.weight, 0);
  if (all <= 0) return null;
  return (
    <section>
      <h2>
        Where the threads' time went{" "}
        <label class="check">
          <input type="checkbox" checked={withIdle} onChange={() => change({ idle: withIdle ? undefined : "true" }, true)} /> with idle
        </label>
      </h2>
      <ClassBar parts={shown} label="Time of the host's threads" tall />
      <ul class="legend">
        {[...shown]
          .sort((a, b) => b.weight - a.weight)
          .slice(0, 8)
          .map((part) => (
            <li key={part.name} title={meaning(part.name)}>
              <span class="swatch" style={{ background: classOf(part.name).colour }} />
              {part.name} <span class="number">{percent(part.weight / all)}</span> <span class="quiet">{duration(part.weight * 1e9)}</span>
            </li>
          ))}
      </ul>
    </section>
  );
}

export function Coverage({ coverage, windowS }: { coverage: NonNullable<Diagnosis["coverage"]>; windowS?: number }) {
  const rows = [
    windowS !== undefined ? `the last window of ${windowS.toFixed(1)} s` : "",
    `${coverage.threads} threads`,
    `${coverage.samples} samples`,
    coverage.lost > 0 ? `${coverage.lost} samples lost` : "none lost",
    `what ended it is known of ${percent(coverage.ends_known)} of the waiting time`,
  ];
  return (
    <section>
      <h2>What this rests on</h2>
      <p>{rows.filter(Boolean).join(" · ")}</p>
      {coverage.lost > 0 && <Notice>{`${coverage.lost} samples were lost: what is shown is less than what happened.`}</Notice>}
      {(coverage.missing?.length ?? 0) > 0 && (
        <ul class="missing" aria-label="What is missing">
          {coverage.missing.map((missing, at) => (
            <li key={at}>{missing}</li>
          ))}
        </ul>
      )}
    </section>
  );
}
