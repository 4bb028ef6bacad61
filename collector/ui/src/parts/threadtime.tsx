// Where the time of some threads goes, over time: a moment of it leads to its stacks.

import type { ComponentChildren } from "preact";
import { url, useAnswer } from "../api/client";
import type { Decomposition } from "../api/types";
import { StackedTime } from "../charts/stacked";
import { selector, type Matcher } from "../selector";
import { lengthMs, stepFor } from "../time";
import { address, change, go, range, type Place } from "../url";
import { Legend } from "./legend";
import { Answered } from "./states";

/** Leaves out time of threads that have nothing to do. */
export const NOT_IDLE: Matcher = { label: "class", operator: "!=", value: "idle" };

interface Props {
  /** Whose threads. */
  of: Matcher[];
  place: Place;
  /** What is said where there is no time. */
  none: string;
  /** What stands above it. */
  children?: ComponentChildren;
}

export function ThreadTime({ of, place, none, children }: Props) {
  const { from, until } = range(place.params);
  const withIdle = place.params.idle === "true";
  const query = selector("wall", withIdle ? of : [...of, NOT_IDLE]);
  const asked = useAnswer<Decomposition>(url("/decomposition", { query, from, until, step: stepFor(lengthMs(from, until)) }));
  const show = (from: number, until: number) => go(address("/explore", { query, from: from.toFixed(0), until: until.toFixed(0) }));
  return (
    <section>
      <h2>
        Where its threads' time goes{" "}
        <label class="check">
          <input type="checkbox" checked={withIdle} onChange={() => change({ idle: withIdle ? undefined : "true" }, true)} /> with idle
        </label>
      </h2>
      {children}
      <Answered asked={asked} what="Thread time">
        {(answer) =>
          answer.scopes.length ? (
            <>
              <StackedTime answer={answer} label="Thread time" onRange={show} />
              <Legend entries={answer.classes} />
            </>
          ) : (
            <p class="quiet">{none}</p>
          )
        }
      </Answered>
    </section>
  );
}
