// What is asked for: a type of profile and matchers of labels, with completion of names and values.

import { useId, useMemo, useState } from "preact/hooks";
import { url, useAnswer } from "../api/client";
import { useHeld } from "../held";
import { quote, split, typing } from "../selector";

/** Types that every collector knows; others are kinds of profiles that are stored. */
const TYPES: [string, string][] = [
  ["wall", "All time"],
  ["cpu", "On CPU"],
  ["offcpu", "Off CPU"],
  ["blocked", "Blocked"],
  ["queue", "Run queue"],
  ["io", "I/O"],
  ["memory", "Memory"],
  ["lock", "Locks"],
  ["net", "Network"],
  ["wait", "Other waits"],
  ["faults", "Page faults"],
  ["retransmits", "Retransmits"],
];
/** As many as a list has room for. */
const MOST = 12;

interface Props {
  query: string;
  from: string;
  until: string;
  label: string;
  /** Whether it asks for labels alone: what it is asked for has no type. */
  isOfLabels?: boolean;
  onChange: (query: string) => void;
}

export function QueryField({ query, from, until, label, isOfLabels, onChange }: Props) {
  const { type, matchers } = split(query);
  // Beside `useHeld`: what is given is what is typed, until something else is asked for.
  const [typed, setTyped] = useState({ of: matchers, text: matchers });
  const text = typed.of === matchers ? typed.text : matchers;
  const setText = (next: string) => setTyped({ of: matchers, text: next });
  const [caret, setCaret] = useState(0);
  const [isOpen, setOpen] = useState(false);
  const id = useId();

  const now = useMemo(() => typing(text, caret), [text, caret]);
  const names = useAnswer<{ labels: { name: string }[] }>(isOpen && now.what === "label" ? url("/labels", { from, until }) : undefined);
  const values = useAnswer<{ values: string[] }>(
    isOpen && now.what === "value" && now.label !== "class" ? url(`/label/${encodeURIComponent(now.label)}/values`, { from, until }) : undefined,
  );
  const offered = useMemo(() => {
    if (!isOpen || now.what === "nothing") return [];
    const all = now.what === "label" ? (names.answer?.labels.map((known) => known.name) ?? []) : (values.answer?.values ?? []);
    const wanted = now.prefix.toLowerCase();
    return all.filter((value) => value.toLowerCase().includes(wanted)).slice(0, MOST);
  }, [isOpen, now, names.answer, values.answer]);
  const [chosen, setChosen] = useHeld(offered, -1);

  const give = (next = text) => {
    setOpen(false);
    setTyped({ of: next, text: next });
    onChange(`${type}{${next}}`);
  };
  const take = (value: string) => {
    if (now.what === "nothing") return;
    const isLabel = now.what === "label";
    const put = isLabel ? `${/^[A-Za-z_][A-Za-z0-9_]*$/.test(value) ? value : quote(value)}=` : quote(value);
    const next = text.slice(0, now.from) + put + text.slice(caret);
    setText(next);
    setCaret(now.from + put.length);
    if (!isLabel) give(next);
  };
  const key = (event: KeyboardEvent) => {
    if (event.key === "ArrowDown" && offered.length) setChosen((chosen + 1) % offered.length);
    else if (event.key === "ArrowUp" && offered.length) setChosen((chosen + offered.length) % (offered.length + 1) - 1 < 0 ? offered.length - 1 : chosen - 1);
    else if (event.key === "Enter") chosen >= 0 ? take(offered[chosen]) : give();
    else if (event.key === "Tab" && chosen >= 0) take(offered[chosen]);
    else if (event.key === "Escape") setOpen(false);
    else return;
    event.preventDefault();
  };
  return (
    <div class="query">
      {!isOfLabels && (
        <label>
          <span class="visually-hidden">{`${label}: type of profile`}</span>
          <select value={type} onChange={(event) => onChange(`${event.currentTarget.value}{${text}}`)}>
            {TYPES.map(([name, words]) => (
              <option key={name} value={name}>
                {words}
              </option>
            ))}
            {!TYPES.some(([name]) => name === type) && <option value={type}>{type || "(none)"}</option>}
          </select>
        </label>
      )}
      <span aria-hidden="true" class="brace">
        {"{"}
      </span>
      <div class="combo">
        <input
          class="code"
          role="combobox"
          aria-label={`${label}: labels`}
          aria-autocomplete="list"
          aria-expanded={offered.length > 0}
          aria-controls={`${id}-list`}
          aria-activedescendant={chosen >= 0 ? `${id}-${chosen}` : undefined}
          placeholder={isOfLabels ? 'all; zone="z1", host=~"web-.*"' : 'host="a", service=~"web.*"'}
          spellcheck={false}
          autocomplete="off"
          value={text}
          onInput={(event) => {
            setText(event.currentTarget.value);
            setCaret(event.currentTarget.selectionStart ?? 0);
            setOpen(true);
          }}
          onFocus={(event) => {
            setCaret(event.currentTarget.selectionStart ?? 0);
            setOpen(true);
          }}
          onClick={(event) => setCaret(event.currentTarget.selectionStart ?? 0)}
          onBlur={() => {
            setOpen(false);
            if (text !== matchers) give();
          }}
          onKeyDown={key}
        />
        <ul role="listbox" id={`${id}-list`} aria-label="Completions" hidden={offered.length === 0}>
          {offered.map((value, at) => (
            <li
              key={value}
              id={`${id}-${at}`}
              role="option"
              aria-selected={at === chosen}
              class="code"
              // Before the field loses the focus.
              onPointerDown={(event) => {
                event.preventDefault();
                take(value);
              }}
            >
              {value}
            </li>
          ))}
        </ul>
      </div>
      <span aria-hidden="true" class="brace">
        {"}"}
      </span>
    </div>
  );
}
