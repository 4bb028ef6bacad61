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

/** Where the pointer or the keyboard is: a lane, and a time in it. */
interface Cursor {
  lane: number;
  ms: number;
  /** Where a stretch was begun, by the pointer or with Shift. */
  begunMs?: number;
}

export function ThreadLines({ answer, chosen, onChoose }: Props) {
  const [box, width] = useWidth<HTMLTableCellElement>();
  const lanes = useRef<HTMLDivElement>(null);
  const [cursor, setCursor] = useState<Cursor>();
  /** The lane that Tab comes to: from there arrow keys go to the others. */
  const [current, setCurrent] = useState(0);
  const durationMs = answer.duration_ns / 1e6;
  const pixelMs = durationMs / Math.max(1, width);
  const give = (lane: number, ms: number, leastMs: number) => {
    const begunMs = cursor?.begunMs ?? ms;
    const [from, until] = [Math.min(begunMs, ms), Math.max(begunMs, ms)];
    setCursor({ lane, ms });
    if (until - from > leastMs) onChoose(Math.floor(from), Math.ceil(until));
  };
  /** What was left is forgotten, unless another lane was come to meanwhile. */
  const leave = (lane: number) => setCursor((now) => (now?.lane === lane ? undefined : now));
  const key = (event: KeyboardEvent, lane: number) => {
    const ms = cursor?.lane === lane ? cursor.ms : undefined;
    const lanesAway = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    const stepsAway = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (lanesAway !== undefined) {
      const next = Math.max(0, Math.min(answer.threads.length - 1, lane + lanesAway));
      setCurrent(next);
      lanes.current!.querySelectorAll<HTMLElement>("canvas")[next]?.focus();
      setCursor({ lane: next, ms: ms ?? 0 });
    } else if (stepsAway !== undefined) {
      const begunMs = event.shiftKey ? (cursor?.begunMs ?? ms ?? 0) : undefined;
      setCursor({ lane, ms: neighbour(answer.threads[lane], ms ?? 0, stepsAway, durationMs), begunMs });
    } else if (event.key === "Enter" && ms !== undefined) {
      give(lane, ms, 0);
    } else if (event.key === "Escape") {
      setCursor(undefined);
    } else {
      return;
    }
    event.preventDefault();
  };
  const shown = cursor?.begunMs !== undefined ? ([cursor.begunMs, cursor.ms] as const) : chosen;
  const pointed = cursor && answer.threads[cursor.lane];
  return (
    <>
      <p class="told">
        <output class="quiet" aria-live="polite">
          {pointed ? `${pointed.thread} ${pointed.tid} at ${duration(cursor.ms * 1e6)}: ${at(pointed, answer, cursor.ms, pixelMs)}` : "point at a lane to see what its thread did; with keys: arrows, Shift and arrows, Enter"}
        </output>
      </p>
      <div class="lanes" tabIndex={0} role="region" aria-label="Threads over time" ref={lanes}>
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
            {answer.threads.map((thread, lane) => (
              <tr key={`${thread.pid} ${thread.tid} ${thread.thread}`}>
                <th scope="row" class="code" title={`${thread.process}, process ${thread.pid}, thread ${thread.tid}`}>
                  {thread.thread} <span class="quiet">{thread.tid}</span>
                </th>
                <td class="lane">
                  {width > 0 && (
                    <Lane
                      answer={answer}
                      thread={thread}
                      width={width}
                      shown={shown}
                      cursorMs={cursor?.lane === lane ? cursor.ms : undefined}
                      isCurrent={lane === current}
                      onPoint={(ms) => setCursor((now) => ({ lane, ms, begunMs: now?.lane === lane ? now.begunMs : undefined }))}
                      onBegin={(ms) => {
                        setCurrent(lane);
                        setCursor({ lane, ms, begunMs: ms });
                      }}
                      // A click is no stretch.
                      onEnd={(ms) => give(lane, ms, pixelMs)}
                      onLeave={() => cursor?.begunMs === undefined && leave(lane)}
                      onBlur={() => leave(lane)}
                      onKey={(event) => key(event, lane)}
                    />
                  )}
                </td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <Legend entries={answer.classes} label="Classes" />
    </>
  );
}

/** The next moment, or the one before, at which something of a thread is known: waits end there, samples are there. */
function neighbour({ end_ns }: TimelineThread, ms: number, direction: number, durationMs: number): number {
  let found = direction > 0 ? durationMs : 0;
  for (const end of end_ns) {
    const at = end / 1e6;
    if (direction > 0 ? at > ms && at < found : at < ms && at > found) found = at;
  }
  return found;
}

/** What is known of a thread at a time: the wait that it is in, or a sample that is no further away than a pixel. */
function at({ end_ns, length_ns, class: classes }: TimelineThread, { classes: known }: Timeline, ms: number, pixelMs: number): string {
  const ns = ms * 1e6;
  let sample = -1;
  for (let one = 0; one < end_ns.length; one++) {
    const begin = end_ns[one] - length_ns[one];
    if (length_ns[one] > 0 && begin <= ns && ns <= end_ns[one]) {
      return `${known[classes[one]].name} for ${duration(length_ns[one])}, from ${duration(Math.max(0, begin))} to ${duration(end_ns[one])}`;
    }
    if (length_ns[one] === 0 && Math.abs(end_ns[one] - ns) <= pixelMs * 1e6) sample = one;
  }
  return sample < 0 ? "nothing is known" : `seen running, ${known[classes[sample]].name}`;
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

interface LaneProps {
  answer: Timeline;
  thread: TimelineThread;
  width: number;
  /** The stretch that is chosen, or about to be. */
  shown?: readonly [fromMs: number, untilMs: number];
  cursorMs?: number;
  /** Whether Tab comes to it. */
  isCurrent: boolean;
  onPoint: (ms: number) => void;
  onBegin: (ms: number) => void;
  onEnd: (ms: number) => void;
  onLeave: () => void;
  onBlur: () => void;
  onKey: (event: KeyboardEvent) => void;
}

function Lane({ answer, thread, width, shown, cursorMs, isCurrent, onPoint, onBegin, onEnd, onLeave, onBlur, onKey }: LaneProps) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const theme = useTheme();
  const about = useMemo(() => described(thread, answer), [thread, answer]);
  const durationMs = answer.duration_ns / 1e6;
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
    context.strokeStyle = context.fillStyle = colour("ink");
    if (shown) {
      const [from, until] = [(Math.min(...shown) / durationMs) * width, (Math.max(...shown) / durationMs) * width];
      context.strokeRect(from + 0.5, 0.5, Math.max(1, until - from - 1), LANE - 1);
    }
    if (cursorMs !== undefined) context.fillRect(Math.min(width - 1, (cursorMs / durationMs) * width), 0, 1, LANE);
  }, [answer, thread, width, theme, shown?.[0], shown?.[1], cursorMs]);
  const at = (event: PointerEvent) => {
    const box = canvas.current!.getBoundingClientRect();
    return Math.max(0, Math.min(1, (event.clientX - box.left) / box.width)) * durationMs;
  };
  return (
    <canvas
      ref={canvas}
      style={{ width: `${width}px`, height: `${LANE}px` }}
      tabIndex={isCurrent ? 0 : -1}
      role="application"
      aria-roledescription="time line"
      aria-label={`${thread.thread} ${thread.tid}: ${about}. Arrow keys go from moment to moment and from thread to thread, Shift chooses a stretch, Enter shows its stacks.`}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        canvas.current!.setPointerCapture(event.pointerId);
        onBegin(at(event));
      }}
      onPointerMove={(event) => onPoint(at(event))}
      onPointerUp={(event) => onEnd(at(event))}
      onPointerLeave={onLeave}
      onKeyDown={onKey}
      onBlur={onBlur}
    />
  );
}
