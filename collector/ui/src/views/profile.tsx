// A profile on demand: of what, how long and how often; how it goes; and what came of it.

import { useMemo, useState } from "preact/hooks";
import { askForToken } from "../access";
import { have, Refused, url, useAnswer } from "../api/client";
import type { Access, Agents, Decomposition, OnDemand } from "../api/types";
import { Choice } from "../flame/panel";
import { Link } from "../parts/link";
import { ProcessList } from "../parts/processes";
import { levelOf } from "../parts/severity";
import { Answered, Notice, Problem } from "../parts/states";
import { is, selector } from "../selector";
import { count, duration, moment } from "../units";
import { address, change, go, type Place } from "../url";
import { Recording } from "./recording";

/** How often it is asked how a profile goes. */
const LOOK_MS = 1000;
const LIST_MS = 10_000;
const RATES = ["49", "99", "199", "499", "999"];
const LENGTHS = ["5s", "10s", "30s", "60s", "300s"];

/** What can be profiled: how the collector is asked, in words, and what its name looks like. */
const TARGETS = [
  { key: "host", name: "the whole host", example: "", by: "" },
  { key: "pod", name: "a pod", example: "namespace/name", by: "namespace,pod" },
  { key: "container", name: "a container", example: "name or id", by: "container" },
  { key: "pid", name: "a process", example: "process id, or a part of its name", by: "" },
  { key: "cgroup", name: "a control group", example: "/system.slice/nginx.service", by: "cgroup" },
] as const;

const isOver = (profile: OnDemand) => ["done", "failed", "cancelled"].includes(profile.state);

export function ProfileView({ place }: { place: Place }) {
  const { id } = place.params;
  const [over, setOver] = useState("");
  const every = id && over !== id ? LOOK_MS : undefined;
  const profile = useAnswer<OnDemand>(id ? url(`/profile/${encodeURIComponent(id)}`, {}) : undefined, every);
  const shown = profile.answer?.id === id ? profile.answer : undefined;
  if (shown && isOver(shown) && over !== id) setOver(shown.id);
  return (
    <div class="profile">
      <h1>{shown ? `${shown.target} on ${shown.host}` : "Profile now"}</h1>
      <Ask place={place} />
      {id && (
        <Answered asked={{ ...profile, isLoading: profile.isLoading && !shown }} what="The profile">
          {(answer) => (answer.id === id ? <Shown profile={answer} place={place} /> : null)}
        </Answered>
      )}
      <Kept current={id} host={place.params.host} />
    </div>
  );
}

function Ask({ place }: { place: Place }) {
  const { host, what = "host", which = "", hz = "99", length = "10s" } = place.params;
  const access = useAnswer<Access>(url("/access", {}));
  const agents = useAnswer<Agents>(url("/agents", {}));
  const target = TARGETS.find((target) => target.key === what) ?? TARGETS[0];
  const query = selector("wall", host ? [is("host", host)] : []);
  const names = useAnswer<Decomposition>(target.by ? url("/decomposition", { query, by: target.by, from: "now-15m", limit: "200" }) : undefined);
  const [problem, setProblem] = useState("");
  const [isAsking, setAsking] = useState(false);
  const hosts = useMemo(() => {
    const known = (agents.answer?.agents ?? []).map((agent) => agent.labels.host).filter((name): name is string => Boolean(name));
    return [...new Set(known)].sort();
  }, [agents.answer]);
  const offered = useMemo(
    () => (names.answer?.scopes ?? []).map((scope) => target.by.split(",").map((label) => scope.labels[label] ?? "")).filter((values) => values.every(Boolean)).map((values) => values.join("/")),
    [names.answer, target.by],
  );
  const { asks_for_tokens: asks, roles, name } = access.answer ?? { asks_for_tokens: false, roles: [], name: null };
  const mayAsk = roles.includes("operator");
  const chosen = host ?? (hosts.length === 1 ? hosts[0] : undefined);
  // Of a pod or a container the collector finds the host by itself.
  const isComplete = target.key === "host" || target.key === "pid" ? Boolean(chosen) : true;

  const begin = async (event: SubmitEvent) => {
    event.preventDefault();
    setProblem("");
    setAsking(true);
    const wanted = target.key === "host" ? {} : { [target.key]: target.key === "pid" ? Number(which) : which };
    try {
      const begun = await have<OnDemand>(url("/profile", {}), { method: "POST", body: { host: chosen, ...wanted, frequency: Number(hz), duration: length } });
      go(address("/profile", { host: begun.host, what, which, hz, length, id: begun.id }));
    } catch (error) {
      setProblem(error instanceof Refused ? error.message : String(error));
    }
    setAsking(false);
  };
  return (
    <>
      <form class="asked" onSubmit={begin} aria-label="What to profile">
        <Choice label="Host" value={chosen ?? ""} options={[...(chosen ? [] : [["", target.key === "host" || target.key === "pid" ? "choose one" : "wherever it is"] as [string, string]]), ...[...new Set([...hosts, ...(host ? [host] : [])])].map((name): [string, string] => [name, name])]} onChange={(host) => change({ host, which: undefined }, true)} />
        <Choice label="Profile" value={target.key} options={TARGETS.map(({ key, name }): [string, string] => [key, name])} onChange={(what) => change({ what: what === "host" ? undefined : what, which: undefined }, true)} />
        {target.key !== "host" && (
          <label class="choice">
            <span aria-hidden="true">Which</span>
            <input
              aria-label="Which"
              class="code"
              list="targets"
              required
              pattern={target.key === "pid" ? "[1-9][0-9]*" : target.key === "pod" ? "[^\\/]+\\/[^\\/]+" : undefined}
              placeholder={target.example}
              spellcheck={false}
              autocomplete="off"
              value={which}
              onInput={(event) => change({ which: event.currentTarget.value }, true)}
            />
            <datalist id="targets">
              {offered.map((name) => (
                <option key={name} value={name} />
              ))}
            </datalist>
          </label>
        )}
        <Choice label="Samples a second" value={hz} options={[...new Set([...RATES, hz])].map((hz): [string, string] => [hz, hz])} onChange={(hz) => change({ hz: hz === "99" ? undefined : hz }, true)} />
        <Choice label="For" value={length} options={[...new Set([...LENGTHS, length])].map((length): [string, string] => [length, length.replace(/s$/, " s")])} onChange={(length) => change({ length: length === "10s" ? undefined : length }, true)} />
        <button type="submit" class="main" disabled={!mayAsk || isAsking || !isComplete} aria-describedby={access.answer && !mayAsk ? "why-not" : undefined}>
          Profile now
        </button>
        {access.answer && !mayAsk && (
          <p id="why-not" class="notice" role="note">
            {asks && name ? `The token “${name}” is a reader's: it may see profiles, not have them made. ` : "Having a profile made costs a host something: it takes an operator's token. "}
            <button type="button" class="link" onClick={askForToken}>
              Give an operator's token
            </button>
          </p>
        )}
        {problem && <Problem>{problem}</Problem>}
      </form>
      {target.key === "pid" &&
        (chosen ? (
          <details open={!place.params.id}>
            <summary>{`Processes of ${chosen}`}</summary>
            <ProcessList host={chosen} which={which} onChoose={(which) => change({ which }, true)} />
          </details>
        ) : (
          <p class="quiet">Choose a host to see its processes.</p>
        ))}
    </>
  );
}

const STATES: Record<string, string> = {
  asked: "the agent loads its kernel programs",
  recording: "recording",
  receiving: "the agent names what it has seen, and sends it",
  reading: "the collector reads it",
};

function Shown({ profile, place }: { profile: OnDemand; place: Place }) {
  const [problem, setProblem] = useState("");
  const cancel = () => {
    setProblem("");
    have<OnDemand>(url(`/profile/${encodeURIComponent(profile.id)}`, {}), { method: "DELETE" }).catch((error: unknown) => setProblem(error instanceof Error ? error.message : String(error)));
  };
  if (profile.state === "failed") return <Problem>{`It failed: ${profile.error ?? "nobody says why"}`}</Problem>;
  if (profile.state === "cancelled") return <Notice>It was cancelled.</Notice>;
  if (profile.state === "done" && profile.outcome) return <Recording profile={profile} outcome={profile.outcome} place={place} />;
  const recorded = profile.state === "recording" ? profile.recorded_ms : profile.state === "asked" ? 0 : profile.duration_ms;
  return (
    <section class="progress" aria-live="polite">
      <progress max={profile.duration_ms} value={recorded} aria-label="Recorded" />
      <p>
        {`${STATES[profile.state] ?? profile.state}: ${duration(recorded * 1e6)} of ${duration(profile.duration_ms * 1e6)}, ${count(profile.samples)} samples`}{" "}
        <button type="button" onClick={cancel}>
          Cancel
        </button>
      </p>
      {problem && <Problem>{problem}</Problem>}
    </section>
  );
}

/** The profiles that the collector still has. */
function Kept({ current, host }: { current?: string; host?: string }) {
  const asked = useAnswer<{ profiles: OnDemand[] }>(url("/profile", {}), LIST_MS);
  return (
    <section>
      <h2>
        Profiles on demand <span class="quiet">kept for an hour</span>
      </h2>
      <Answered asked={asked} what="Profiles">
        {({ profiles }) =>
          profiles.length === 0 ? (
            <p class="quiet">None was asked for lately.</p>
          ) : (
            <div class="scroll" tabIndex={0} role="region" aria-label="Profiles on demand">
              <table class="data">
                <thead>
                  <tr>
                    <th scope="col">Asked</th>
                    <th scope="col">Host</th>
                    <th scope="col">Of</th>
                    <th scope="col" class="number">For</th>
                    <th scope="col" class="number">Samples</th>
                    <th scope="col">Came to</th>
                  </tr>
                </thead>
                <tbody>
                  {profiles.map((profile) => {
                    const verdict = profile.outcome?.verdict;
                    return (
                      <tr key={profile.id}>
                        <td class="when">
                          <Link view="/profile" params={{ id: profile.id, host }} current={profile.id === current}>
                            {moment(profile.asked_unix_ms)}
                          </Link>
                        </td>
                        <td>{profile.host}</td>
                        <td class="code">{profile.target}</td>
                        <td class="number">{duration(profile.duration_ms * 1e6)}</td>
                        <td class="number">{count(profile.samples)}</td>
                        <td>
                          {verdict ? (
                            <>
                              <span class={`severity ${levelOf(verdict.severity).name}`}>{levelOf(verdict.severity).mark}</span> <b class="code">{verdict.code}</b>
                            </>
                          ) : (
                            profile.error ?? profile.state
                          )}
                        </td>
                      </tr>
                    );
                  })}
                </tbody>
              </table>
            </div>
          )
        }
      </Answered>
    </section>
  );
}
