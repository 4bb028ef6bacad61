// What threads did, and when: a lane for each, in the colours of classes. A wait is as long as it was; a running thread is a line at each sample.

import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import type { Timeline, TimelineThread } from "../api/types";
import { Legend } from "../parts/legend";
import { useWidth } from "../parts/width";
import { colour, useTheme } from "../theme";
import { duration, percent } from "../units";

const LANE = 16;

interface Props {
  answer: Timeline;
  /** The stretch that is chosen, milliseconds since the recording's start. */
  chosen?: readonly [fromMs: number, untilMs: number];
  onChoose: (fromMs: number, untilMs: number) => void;
}

export function ThreadLines({ answer, chosen, onChoose }: Props) {
  const [box, width] = useWidth<HTMLTableCellElement>();
  return (
    <>
      <div class="lanes" tabIndex={0} role="region" aria-label="Threads over time">
        <table>
          <thead>
            <tr>
              <th scope="col">Thread</th>
              <th scope="col" class="lane" ref={box}>
                <span class="ends">
                  <span>0 s</span>
                  <span>{duration(answer.duration_ns)}</span>
                </span>
              </th>
            </tr>
          </thead>
          <tbody>
            {answer.threads.map((thread) => (
              <tr key={`${thread.pid} ${thread.tid} ${thread.thread}`}>
                <th scope="row" class="code" title={`${thread.process}, process ${thread.pid}, thread ${thread.tid}`}>
                  {thread.thread} <span class="quiet">{thread.tid}</span>
                </th>
                <td class="lane">{width > 0 && <Lane answer={answer} thread={thread} width={width} chosen={chosen} onChoose={onChoose} />}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <Legend entries={answer.classes} label="Classes" />
    </>
  );
}

/** The classes of which most is known: waits by their length, and how often the thread was seen running. */
function described({ length_ns, class: classes }: TimelineThread, { classes: known, duration_ns }: Timeline): string {
  const waited = new Map<number, number>();
  let running = 0;
  length_ns.forEach((length, at) => {
    if (length === 0) running++;
    else waited.set(classes[at], (waited.get(classes[at]) ?? 0) + length);
  });
  const most = [...waited].sort((a, b) => b[1] - a[1]).slice(0, 3);
  const parts = most.map(([at, ns]) => `${known[at].name} ${percent(ns / duration_ns)}`);
  if (running) parts.push(`seen running ${running} times`);
  return parts.join(", ");
}

function Lane({ answer, thread, width, chosen, onChoose }: Props & { thread: TimelineThread; width: number }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  const [pulled, setPulled] = useState<readonly [number, number]>();
  const about = useMemo(() => described(thread, answer), [thread, answer]);
  const durationMs = answer.duration_ns / 1e6;
  const shown = pulled ?? chosen;
  useLayoutEffect(() => {
    const context = canvas.current?.getContext("2d");
    if (!context) return;
    const density = devicePixelRatio || 1;
    context.canvas.width = Math.round(width * density);
    context.canvas.height = Math.round(LANE * density);
    context.setTransform(density, 0, 0, density, 0, 0);
    const x = (ns: number) => (ns / answer.duration_ns) * width;
    const draw = (isWait: boolean) => {
      for (let at = 0; at < thread.end_ns.length; at++) {
        const length = thread.length_ns[at];
        if (length > 0 !== isWait) continue;
        context.fillStyle = answer.classes[thread.class[at]].colour;
        const left = x(Math.max(0, thread.end_ns[at] - length));
        context.fillRect(left, 2, Math.max(1, x(thread.end_ns[at]) - left), LANE - 4);
      }
    };
    // Waits first: lines are thin.
    draw(true);
    draw(false);
    if (shown) {
      const [from, until] = [(Math.min(...shown) / durationMs) * width, (Math.max(...shown) / durationMs) * width];
      context.strokeStyle = colour("ink");
      context.strokeRect(from + 0.5, 0.5, Math.max(1, until - from - 1), LANE - 1);
    }
  }, [answer, thread, width, theme, shown?.[0], shown?.[1]]);
  const at = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * durationMs;
  };
  return (
    <canvas
      ref={canvas}
      style={{ width: `${width}px`, height: `${LANE}px` }}
      role="img"
      aria-label={about}
      title={about}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        canvas.current!.setPointerCapture(event.pointerId);
        setPulled([at(event), at(event)]);
      }}
      onPointerMove={(event) => pulled && setPulled([pulled[0], at(event)])}
      onPointerUp={(event) => {
        if (!pulled) return;
        const [from, until] = [Math.min(pulled[0], at(event)), Math.max(pulled[0], at(event))];
        setPulled(undefined);
        // A click is no stretch.
        if (until - from > durationMs / width) onChoose(Math.floor(from), Math.ceil(until));
      }}
    />
  );
}
