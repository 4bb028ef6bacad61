// Where the page is: a view, and what it shows, all in the address, so that every view is a link.

import { useEffect, useState } from "preact/hooks";

/** Views by their path. The collector answers each of these with the page. */
export const VIEWS = ["/", "/verdict", "/explore", "/host", "/pod", "/compare", "/profile"] as const;
export type View = (typeof VIEWS)[number];

export type Params = Record<string, string | undefined>;

export interface Place {
  view: View;
  params: Readonly<Record<string, string>>;
}

/** What a view shows where its address says nothing. */
export const DEFAULTS: Readonly<Record<string, string>> = { from: "now-1h", until: "now" };

export function read({ pathname, search }: { pathname: string; search: string }): Place {
  const view = VIEWS.find((view) => view === pathname) ?? "/";
  return { view, params: Object.fromEntries(new URLSearchParams(search)) };
}

/** An address; what is as usual is left out. */
export function address(view: View, params: Params): string {
  const kept = new URLSearchParams();
  for (const [name, value] of Object.entries(params)) {
    if (value !== undefined && value !== "" && value !== DEFAULTS[name]) kept.set(name, value);
  }
  const text = kept.toString();
  return text ? `${view}?${text}` : view;
}

const listeners = new Set<() => void>();

function changed(): void {
  for (const listener of listeners) listener();
}

/** The least time between two changes of the address that are no steps of their own: browsers count them, and take longer for one than the page. */
const REPLACE_MS = 200;
/** Where the page is; the browser's address may follow it by that time. */
let here = typeof location === "undefined" ? "/" : location.pathname + location.search;
let timer: ReturnType<typeof setTimeout> | undefined;
let replacedMs = -REPLACE_MS;

/** Has the browser's address be that of the page. */
function follow(): void {
  clearTimeout(timer);
  timer = undefined;
  if (here === location.pathname + location.search) return;
  replacedMs = performance.now();
  history.replaceState(null, "", here);
}

function place(): Place {
  return read(new URL(here, location.origin));
}

/** Goes to an address. `replace` is for what is no step of its own for the back button. */
export function go(to: string, replace = false): void {
  if (to === here) return;
  if (replace) {
    here = to;
    timer ??= setTimeout(follow, Math.max(0, replacedMs + REPLACE_MS - performance.now()));
  } else {
    follow();
    here = to;
    history.pushState(null, "", to);
  }
  changed();
  if (!replace) scrollTo(0, 0);
}

/** Changes some of what the present view shows. */
export function change(params: Params, replace = false): void {
  const { view, params: shown } = place();
  go(address(view, { ...shown, ...params }), replace);
}

/** Where the page is, now and after every change. */
export function usePlace(): Place {
  const [shown, setShown] = useState(place);
  useEffect(() => {
    const listener = () => setShown(place());
    // Back or forward: what was not yet in the address is of the place that was left.
    const moved = () => {
      clearTimeout(timer);
      timer = undefined;
      here = location.pathname + location.search;
      changed();
    };
    listeners.add(listener);
    addEventListener("popstate", moved);
    addEventListener("pagehide", follow);
    return () => {
      listeners.delete(listener);
      removeEventListener("popstate", moved);
      removeEventListener("pagehide", follow);
    };
  }, []);
  return shown;
}

/** The time that a place shows. */
export function range(params: Readonly<Record<string, string>>): { from: string; until: string } {
  return { from: params.from ?? DEFAULTS.from, until: params.until ?? DEFAULTS.until };
}
