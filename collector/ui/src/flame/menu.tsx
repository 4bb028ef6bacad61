// What can be done with a frame: a menu at the pointer.

import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { path, type Graph } from "./graph";

export interface MenuAt {
  node: number;
  x: number;
  y: number;
}

interface Props {
  graph: Graph;
  at: MenuAt;
  onClose: () => void;
  onZoom: (node: number) => void;
  onSandwich?: (frame: number) => void;
  onSearch?: (name: string) => void;
  /** Leaves only stacks with a function. */
  onOnly?: (frame: number) => void;
}

export function Menu({ graph, at, onClose, onZoom, onSandwich, onSearch, onOnly }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const { name } = graph.frames;
  const frame = graph.frame[at.node];
  const stack = () => path(graph, at.node).slice(1).map((node) => name[graph.frame[node]]).reverse().join("\n");
  const items: [string, () => void][] = [
    ["Zoom in", () => onZoom(at.node)],
    ["Copy the frame", () => copy(name[frame])],
    ["Copy the stack", () => copy(stack())],
  ];
  if (onSandwich) items.push(["Callers and callees", () => onSandwich(frame)]);
  if (onOnly && at.node !== 0) items.push(["Only stacks with it", () => onOnly(frame)]);
  if (onSearch) items.push(["Search for it", () => onSearch(name[frame])]);
  useLayoutEffect(() => {
    const { offsetWidth, offsetHeight } = box.current!;
    box.current!.style.left = `${Math.min(at.x, innerWidth - offsetWidth - 8)}px`;
    box.current!.style.top = `${Math.min(at.y, innerHeight - offsetHeight - 8)}px`;
    box.current!.querySelector("button")?.focus();
  }, [at]);
  useEffect(() => {
    const outside = (event: PointerEvent) => {
      if (!box.current?.contains(event.target as Node)) onClose();
    };
    addEventListener("pointerdown", outside);
    return () => removeEventListener("pointerdown", outside);
  }, [onClose]);
  const key = (event: KeyboardEvent) => {
    const buttons = [...box.current!.querySelectorAll("button")];
    const now = buttons.indexOf(document.activeElement as HTMLButtonElement);
    if (event.key === "Escape") onClose();
    else if (event.key === "ArrowDown") buttons[(now + 1) % buttons.length].focus();
    else if (event.key === "ArrowUp") buttons[(now + buttons.length - 1) % buttons.length].focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  return (
    <div class="menu" role="menu" aria-label={name[frame]} ref={box} onKeyDown={key}>
      {items.map(([text, act]) => (
        <button
          key={text}
          type="button"
          role="menuitem"
          onClick={() => {
            act();
            onClose();
          }}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

/** Browsers have no clipboard where the page came without encryption from another host: then by an old way. */
function copy(text: string): void {
  if (navigator.clipboard) {
    void navigator.clipboard.writeText(text).catch(() => copyOldWay(text));
  } else {
    copyOldWay(text);
  }
}

function copyOldWay(text: string): void {
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}
