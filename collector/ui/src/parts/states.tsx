// What stands where an answer is not there yet, is empty, or does not come.

import type { ComponentChildren } from "preact";
import { lacking, type Asked } from "../api/client";

/** Something the reader has to know of what they see. */
export function Notice({ children }: { children: ComponentChildren }) {
  return (
    <p class="notice" role="note">
      {children}
    </p>
  );
}

export function Problem({ children }: { children: ComponentChildren }) {
  return (
    <p class="problem" role="alert">
      {children}
    </p>
  );
}

/** Says that a part of the collector's store told nothing of what is shown. */
export function Partial({ what, of }: { what: string; of: unknown[] }) {
  const missing = lacking(...of);
  if (missing.length === 0) return null;
  return <Notice>{`${what}: a part of the store did not answer, and what it has is missing here: ${missing.join("; ")}`}</Notice>;
}

/** Shows what an answer has, or why there is none. */
export function Answered<T>({ asked, what, children }: { asked: Asked<T>; what: string; children: (answer: T) => ComponentChildren }) {
  return (
    <div aria-busy={asked.isLoading || (asked.answer === undefined && !asked.error)}>
      {asked.error && <Problem>{`${what}: ${asked.error.message}`}</Problem>}
      <Partial what={what} of={[asked.answer]} />
      {asked.answer !== undefined ? children(asked.answer) : !asked.error && <p class="quiet loading">{`${what}: on its way`}</p>}
    </div>
  );
}
