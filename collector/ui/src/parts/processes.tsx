// The processes of a host that may be profiled: those that its agent told of last, one of which is chosen.

import { useAnswer, url } from "../api/client";
import type { Processes } from "../api/types";
import { moment, span } from "../units";
import { Answered } from "./states";

/** As often as windows come. */
const EVERY_MS = 10_000;

interface Props {
  host: string;
  /** What was typed: a process id, or a part of a name. */
  which: string;
  onChoose: (pid: string) => void;
}

export function ProcessList({ host, which, onChoose }: Props) {
  const asked = useAnswer<Processes>(url("/processes", { host }), EVERY_MS);
  // A number is one that was chosen, and no part of a name.
  const wanted = /^\d*$/.test(which) ? "" : which.toLowerCase();
  return (
    <Answered asked={asked} what={`Processes of ${host}`}>
      {({ processes, until_unix_ms, window_ms, left_out }) => {
        if (until_unix_ms === 0) return <p class="quiet">{`The agent of ${host} has told of no processes yet: that comes with its next window, unless it is older than this collector. Any process id can be typed.`}</p>;
        const shown = processes.filter(({ name, pod, container }) => `${name} ${pod} ${container}`.toLowerCase().includes(wanted));
        return (
          <>
            <div class="scroll processes" tabIndex={0} role="region" aria-label={`Processes of ${host}`}>
              <table class="data">
                <thead>
                  <tr>
                    <th scope="col" class="number" title={`CPUs in use, on average over ${span(window_ms)}`}>
                      CPUs
                    </th>
                    <th scope="col" class="number">
                      Process id
                    </th>
                    <th scope="col">Name</th>
                    <th scope="col" class="wide">
                      Pod and container
                    </th>
                  </tr>
                </thead>
                <tbody>
                  {shown.map(({ pid, name, cpus, pod, container }) => (
                    <tr key={pid} class={which === String(pid) ? "chosen" : undefined}>
                      <td class="number">{cpus.toFixed(2)}</td>
                      <td class="number">{pid}</td>
                      <td class="name">
                        <button type="button" class="link code" aria-pressed={which === String(pid)} aria-label={`Profile process ${pid}, ${name}`} onClick={() => onChoose(String(pid))}>
                          {name || "(no name)"}
                        </button>
                      </td>
                      <td class="code">{[pod, container].filter(Boolean).join(" · ")}</td>
                    </tr>
                  ))}
                </tbody>
              </table>
            </div>
            {shown.length === 0 && <p class="quiet">{`No process that ran lately has ${which} in its name, pod or container.`}</p>}
            <p class="quiet">{`Those that ran most up to ${moment(until_unix_ms)}${left_out > 0 ? `; ${left_out} more ran less` : ""}. Any other process id can be typed.`}</p>
          </>
        );
      }}
    </Answered>
  );
}
