// Light or dark: as the system has it, unless chosen.

import { useEffect, useState } from "preact/hooks";

export type Theme = "light" | "dark";

const KEY = "chokepoint.theme";
const system = matchMedia("(prefers-color-scheme: dark)");

export function current(): Theme {
  const chosen = localStorage.getItem(KEY);
  return chosen === "light" || chosen === "dark" ? chosen : system.matches ? "dark" : "light";
}

function apply(): void {
  document.documentElement.dataset.theme = current();
}

apply();

export function toggle(): void {
  localStorage.setItem(KEY, current() === "dark" ? "light" : "dark");
  apply();
  dispatchEvent(new Event("themechange"));
}

/** The theme, for what is drawn on a canvas. */
export function useTheme(): Theme {
  const [theme, setTheme] = useState(current);
  useEffect(() => {
    const listener = () => {
      apply();
      setTheme(current());
    };
    addEventListener("themechange", listener);
    system.addEventListener("change", listener);
    return () => {
      removeEventListener("themechange", listener);
      system.removeEventListener("change", listener);
    };
  }, []);
  return theme;
}

/** A colour of the style sheet. */
export function colour(name: string): string {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}
