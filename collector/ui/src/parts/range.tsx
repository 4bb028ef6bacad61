// The time that a view shows.

import { useState } from "preact/hooks";
import { shownTime, typedTime } from "../time";
import { moment } from "../units";
import { change, range, type Place } from "../url";

const USUAL: [from: string, text: string][] = [
  ["now-5m", "5 min"],
  ["now-15m", "15 min"],
  ["now-1h", "1 h"],
  ["now-6h", "6 h"],
  ["now-24h", "24 h"],
  ["now-7d", "7 d"],
];

/** Unix seconds as people read them; what is relative stays. */
function shown(time: string): string {
  return /^\d+(\.\d+)?$/.test(time) ? moment(Number(time) * 1000) : time;
}

export function RangePicker({ place }: { place: Place }) {
  const { from, until } = range(place.params);
  const [isOpen, setOpen] = useState(false);
  const usual = until === "now" ? from : "";
  const isKnown = USUAL.some(([key]) => key === usual);
  const pick = (value: string) => {
    if (value === "other") setOpen(true);
    else change({ from: value, until: "now" });
  };
  const give = (event: SubmitEvent) => {
    event.preventDefault();
    const form = new FormData(event.target as HTMLFormElement);
    setOpen(false);
    change({ from: typedTime(String(form.get("from")), from) || "now-1h", until: typedTime(String(form.get("until")), until) || "now" });
  };
  return (
    <div class="range">
      <select aria-label="Time" value={isKnown ? usual : "other"} onChange={(event) => pick(event.currentTarget.value)}>
        {USUAL.map(([key, text]) => (
          <option key={key} value={key}>
            last {text}
          </option>
        ))}
        <option value="other">{isKnown ? "other time…" : `${shown(from)} – ${shown(until)}`}</option>
      </select>
      {isOpen || !isKnown ? (
        <form onSubmit={give}>
          <TimeField name="from" label="From: now-1h, a day and a time, or Unix seconds" value={from} />
          <span aria-hidden="true">–</span>
          <TimeField name="until" label="Until: now, a day and a time, or Unix seconds" value={until} />
          <button type="submit">Show</button>
        </form>
      ) : null}
    </div>
  );
}

/** A field for a time, which a form reads by `typedTime`. */
export function TimeField({ name, label, value }: { name: string; label: string; value: string }) {
  return <input name={name} aria-label={label} key={value} defaultValue={shownTime(value)} size={17} />;
}
