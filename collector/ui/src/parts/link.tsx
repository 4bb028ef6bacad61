// A link within the page.

import type { ComponentChildren } from "preact";
import { address, go, type Params, type View } from "../url";

interface Props {
  view: View;
  params: Params;
  class?: string;
  title?: string;
  label?: string;
  current?: boolean;
  children: ComponentChildren;
}

export function Link({ view, params, label, current, children, ...rest }: Props) {
  const to = address(view, params);
  const follow = (event: MouseEvent) => {
    // What opens a tab or a window is the browser's.
    if (event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    go(to);
  };
  return (
    <a href={to} onClick={follow} aria-label={label} aria-current={current ? "page" : undefined} {...rest}>
      {children}
    </a>
  );
}
