// A flame graph with all that belongs to it: how it is turned, searched and coloured, the table beside it, what it lacks, and its files.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { download, url } from "../api/client";
import { useHeld } from "../held";
import { Notice } from "../parts/states";
import { percent, weight, whole } from "../units";
import { Flame } from "./canvas";
import type { ColourBy } from "./colours";
import { incomplete, nodeOfHash, pathHash, type Graph } from "./graph";
import { packages } from "./packages";
import { compiled, find } from "./search";
import { escapeRegex } from "../selector";
import { grouped, inverted, modules, sandwich, through, withoutRecursion } from "./transform";
import { FunctionTable } from "./table";

/** What of a panel is part of the address. */
export interface Shown {
  search?: string;
  zoom?: string;
  colour?: string;
  turn?: string;
  show?: string;
  of?: string;
  only?: string;
  fold?: string;
  /** What functions are sorted by. */
  by_column?: string;
}

/** What of an address is a panel's. */
export function shownBy({ search, zoom, colour, turn, show, of, only, fold, by_column }: Readonly<Record<string, string>>): Shown {
  return { search, zoom, colour, turn, show, of, only, fold, by_column };
}

interface Props {
  graph: Graph;
  label: string;
  shown: Shown;
  onChange: (shown: Shown) => void;
  /** What was asked, for its files; none of a diff. */
  file?: Record<string, string | undefined>;
  /** The files themselves, where they are not those of a query. */
  files?: readonly [path: string, end: string, name: string][];
  /** The node that is zoomed to where the address names none. */
  proof?: number;
  /** What is known to be missing of it, beside what the graph itself tells. */
  gaps?: ComponentChildren;
}

const FILES: [path: string, end: string, name: string][] = [
  ["/pprof", "pb.gz", "pprof"],
  ["/folded", "folded", "folded"],
  ["/svg", "svg", "SVG"],
  ["/speedscope", "speedscope.json", "speedscope"],
];

/** From this part on, stacks without all of their callers change what is seen, and are told as what is missing. */
const TELLING = 0.005;

/** Waits for a pause in typing. */
const TYPING_MS = 120;

export function FlamePanel({ graph: measured, label, shown, onChange, file, files = FILES, proof, gaps }: Props) {
  const isDiff = measured.sides.length > 1;
  const hasClasses = useMemo(() => measured.frames.kind.includes("class"), [measured]);
  const colourBy = (shown.colour as ColourBy) || (isDiff ? "diff" : hasClasses ? "class" : "kind");
  const folds = (shown.fold ?? "").split(",").filter(Boolean);
  const wanted = useMemo(() => {
    const frame = shown.only === undefined ? -1 : measured.frames.name.indexOf(shown.only);
    return frame >= 0 ? through(measured, frame) : measured;
  }, [measured, shown.only]);
  const folded = useMemo(() => {
    let graph = wanted;
    if (folds.includes("module")) graph = grouped(graph, modules(graph.frames));
    if (folds.includes("package")) graph = grouped(graph, packages(graph.frames));
    if (folds.includes("recursion")) graph = withoutRecursion(graph);
    return graph;
  }, [wanted, shown.fold]);
  const isInverted = shown.turn === "inverted";
  const graph = useMemo(() => (isInverted ? inverted(folded) : folded), [folded, isInverted]);
  const isFlame = shown.turn === "flame";
  const unknown = useMemo(() => incomplete(measured), [measured]);

  const expression = useMemo(() => (shown.search ? compiled(shown.search) : undefined), [shown.search]);
  const search = expression instanceof RegExp ? expression : undefined;
  const found = useMemo(() => (search ? find(graph, search) : undefined), [graph, search]);
  const middle = shown.of !== undefined ? folded.frames.name.indexOf(shown.of) : -1;
  const both = useMemo(() => (middle >= 0 ? sandwich(folded, middle) : undefined), [folded, middle]);

  const zoom = useMemo(() => {
    if (shown.zoom === "all") return 0;
    if (shown.zoom) return nodeOfHash(graph, shown.zoom) ?? 0;
    return graph === measured ? (proof ?? 0) : 0;
  }, [graph, shown.zoom, proof]);
  const onZoom = (node: number) => onChange({ zoom: node === 0 ? (proof ? "all" : undefined) : pathHash(graph, node) });
  const onSearch = (name: string) => onChange({ search: `^${escapeRegex(name)}$` });
  const onSandwich = (frame: number) => onChange({ of: folded.frames.name[frame], zoom: undefined });
  const onOnly = (frame: number) => onChange({ only: folded.frames.name[frame], zoom: undefined });
  const group = folds.find((fold) => fold === "module" || fold === "package") ?? "";
  const isFlat = folds.includes("recursion");
  const fold = (group: string, isFlat: boolean) => onChange({ fold: [group, isFlat ? "recursion" : ""].filter(Boolean).join(",") || undefined, zoom: undefined, of: undefined });
  const show = shown.show ?? "both";
  const last = measured.sides[measured.sides.length - 1];
  // Of a group there is no function to ask for.
  const flame = { colourBy, onSandwich, onSearch, onOnly: group ? undefined : onOnly };
  return (
    <section class="panel" aria-label={label}>
      <div class="tools">
        <SearchField value={shown.search ?? ""} onChange={(search) => onChange({ search: search || undefined })} error={typeof expression === "string" ? expression : undefined} />
        {found && (
          <output class="matched">
            {found.shares.map((share) => percent(share)).join(" → ")} in {whole(found.count)} {found.count === 1 ? "frame" : "frames"}
          </output>
        )}
        <Choice label="Turn" value={shown.turn ?? "icicle"} options={[["icicle", "Icicle"], ["flame", "Flame"], ["inverted", "Inverted"]]} onChange={(turn) => onChange({ turn: turn === "icicle" ? undefined : turn, zoom: undefined })} />
        <Choice
          label="Colour"
          value={colourBy}
          options={[...(hasClasses ? [["class", "By class"] as [string, string]] : []), ["kind", "By code"], ["module", "By module"], ["package", "By package"], ...(isDiff ? [["diff", "By change"] as [string, string]] : [])]}
          onChange={(colour) => onChange({ colour })}
        />
        <Choice label="Show" value={show} options={[["both", "Both"], ["flame", "Graph"], ["table", "Table"]]} onChange={(show) => onChange({ show })} />
        <Choice label="Frames" value={group} options={[["", "Functions"], ["package", "Packages"], ["module", "Modules"]]} onChange={(group) => fold(group, isFlat)} />
        <label class="check">
          <input type="checkbox" checked={isFlat} onChange={() => fold(group, !isFlat)} /> No recursion
        </label>
        {file && <Files asked={file} files={files} />}
      </div>
      <p class="quiet facts">
        {weight(last.weight, measured.unit)} in {whole(last.samples)} samples · {whole(graph.parent.length)} nodes
        {unknown.share > 0 && unknown.share < TELLING && ` · callers unknown of ${percent(unknown.share)}`}
        {shown.only !== undefined && (
          <>
            {" · "}
            {wanted === measured ? "no stack has " : "only stacks with "}
            <b class="code">{shown.only}</b>
            {wanted !== measured && `: ${wanted.sides.map((side, at) => percent(measured.sides[at].weight > 0 ? side.weight / measured.sides[at].weight : 0)).join(" → ")} of all`}{" "}
            <button type="button" class="link" onClick={() => onChange({ only: undefined, zoom: undefined })}>
              All stacks
            </button>
          </>
        )}
        {zoom !== 0 && (
          <>
            {" · "}
            <button type="button" class="link" onClick={() => onZoom(0)}>
              Show all
            </button>
          </>
        )}
      </p>
      {measured.mergedNodes > 0 && (
        <Notice>{`${whole(measured.mergedNodes)} of the lightest nodes are merged into “[lighter frames]”: no weight is lost, and a narrower query tells them apart.`}</Notice>
      )}
      {unknown.share >= TELLING && (
        <Notice>{`Of ${percent(unknown.share)} of it the callers are not all known (${unknown.causes.slice(0, 3).join(", ")}): these stacks begin with “[incomplete: …]”.`}</Notice>
      )}
      {gaps}
      {last.samples > 0 && last.samples < 100 && <Notice>{`Only ${last.samples} samples: shares are rough. Ask for more time.`}</Notice>}
      {both ? (
        <div class="sandwich">
          <p>
            Callers and callees of <b class="code">{shown.of}</b> · {weight(both.callees.sides.at(-1)!.weight, measured.unit)}{" "}
            <button type="button" class="link" onClick={() => onChange({ of: undefined })}>
              Back to the whole
            </button>
          </p>
          <Part graph={both.callers} label={`Callers of ${shown.of}`} isFlame search={search} {...flame} />
          <Part graph={both.callees} label={`Callees of ${shown.of}`} isFlame={false} search={search} {...flame} />
        </div>
      ) : (
        <div class={`split ${show}`}>
          {show !== "flame" && <FunctionTable graph={folded} matches={search ? (isInverted ? find(folded, search).frames : found?.frames) : undefined} onSearch={onSearch} onSandwich={onSandwich} sort={shown.by_column} onSort={(by_column) => onChange({ by_column })} />}
          {show !== "table" && <Flame graph={graph} label={label} isFlame={isFlame} found={found} zoom={zoom} onZoom={onZoom} {...flame} />}
        </div>
      )}
    </section>
  );
}

/** One half of a sandwich, which is zoomed by itself. */
function Part({ graph, search, ...rest }: { graph: Graph; label: string; isFlame: boolean; search?: RegExp; colourBy: ColourBy; onSandwich: (frame: number) => void; onSearch: (name: string) => void; onOnly?: (frame: number) => void }) {
  const [zoom, setZoom] = useHeld(graph, 0);
  const found = useMemo(() => (search ? find(graph, search) : undefined), [graph, search]);
  return <Flame graph={graph} found={found} zoom={zoom} onZoom={setZoom} maxRows={20} {...rest} />;
}

function SearchField({ value, onChange, error }: { value: string; onChange: (value: string) => void; error?: string }) {
  const [text, setText] = useState(value);
  const timer = useRef<number>();
  const field = useRef<HTMLInputElement>(null);
  // What was typed since is not to be undone by what comes back.
  const sent = useRef(value);
  useEffect(() => {
    if (value === sent.current) return;
    sent.current = value;
    setText(value);
  }, [value]);
  useEffect(() => {
    const key = (event: KeyboardEvent) => {
      const isTyping = event.target instanceof HTMLElement && event.target.matches("input, textarea, select");
      if (event.key === "/" && !isTyping) {
        event.preventDefault();
        field.current?.focus();
      }
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  }, []);
  const type = (next: string) => {
    setText(next);
    clearTimeout(timer.current);
    timer.current = window.setTimeout(() => {
      sent.current = next;
      onChange(next);
    }, TYPING_MS);
  };
  return (
    <label class="search">
      <span class="visually-hidden">Search frames by a regular expression</span>
      <input ref={field} type="search" placeholder="Search frames: regex ( / )" spellcheck={false} value={text} aria-invalid={error !== undefined} onInput={(event) => type(event.currentTarget.value)} />
      {error && <span class="bad" role="alert">{error}</span>}
    </label>
  );
}

export function Choice({ label, value, options, onChange }: { label: string; value: string; options: [string, string][]; onChange: (value: string) => void }) {
  return (
    <label class="choice">
      <span aria-hidden="true">{label}</span>
      <select aria-label={label} value={value} onChange={(event) => onChange(event.currentTarget.value)}>
        {options.map(([key, text]) => (
          <option key={key} value={key}>
            {text}
          </option>
        ))}
      </select>
    </label>
  );
}

function Files({ asked, files }: { asked: Record<string, string | undefined>; files: readonly [path: string, end: string, name: string][] }) {
  const [problem, setProblem] = useState("");
  const keep = (path: string, end: string) => {
    setProblem("");
    download(url(path, asked), `profile.${end}`).then(setProblem, (error: unknown) => setProblem(error instanceof Error ? error.message : String(error)));
  };
  return (
    <span class="files">
      {files.map(([path, end, name]) => (
        <button key={path} type="button" onClick={() => keep(path, end)} title={`Download as ${name}`}>
          {name}
        </button>
      ))}
      {problem && <span class="bad" role="alert">{problem}</span>}
    </span>
  );
}
