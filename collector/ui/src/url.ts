// Where the page is: a view, and what it shows, all in the address, so that every view is a link.

import { useEffect, useState } from "preact/hooks";

/** Views by their path. The collector answers each of these with the page. */
export const VIEWS = ["/", "/verdict", "/explore", "/host", "/compare", "/profile"] as const;
export type View = (typeof VIEWS)[number];

export type Params = Record<string, string | undefined>;

export interface Place {
  view: View;
  params: Readonly<Record<string, string>>;
}

/** What a view shows where its address says nothing. */
export const DEFAULTS: Readonly<Record<string, string>> = { from: "now-1h", until: "now" };

export function read(location: { pathname: string; search: string }): Place {
  const view = VIEWS.find((view) => view === location.pathname) ?? "/";
  return { view, params: Object.fromEntries(new URLSearchParams(location.search)) };
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

/** Goes to an address. `replace` is for what is no step of its own for the back button. */
export function go(to: string, replace = false): void {
  if (to === `${location.pathname}${location.search}`) return;
  history[replace ? "replaceState" : "pushState"](null, "", to);
  changed();
  if (!replace) scrollTo(0, 0);
}

/** Changes some of what the present view shows. */
export function change(params: Params, replace = false): void {
  const place = read(location);
  go(address(place.view, { ...place.params, ...params }), replace);
}

/** Where the page is, now and after every change. */
export function usePlace(): Place {
  const [place, setPlace] = useState(() => read(location));
  useEffect(() => {
    const listener = () => setPlace(read(location));
    listeners.add(listener);
    addEventListener("popstate", listener);
    return () => {
      listeners.delete(listener);
      removeEventListener("popstate", listener);
    };
  }, []);
  return place;
}

/** The time that a place shows. */
export function range(params: Readonly<Record<string, string>>): { from: string; until: string } {
  return { from: params.from ?? DEFAULTS.from, until: params.until ?? DEFAULTS.until };
}
