// Answers of the collector, as docs/queries.md describes them.

export type Labels = Record<string, string>;

export interface Subject {
  query: string;
  title: string;
  unit: string;
  from_unix_ms: number;
  until_unix_ms: number;
}

export interface Overview {
  from_unix_ms: number;
  until_unix_ms: number;
  hosts: Host[];
  left_out: number;
}

export interface Host {
  labels: Labels;
  kernel: string;
  program: string;
  last_window_unix_ms: number;
  dropped_batches: number;
  cpu_pct?: number;
  verdict?: HostVerdict;
  history: Span[];
  earlier: number;
}

export interface HostVerdict {
  code: string;
  is_constraint: boolean;
  severity: number;
  confidence: number;
  share: number;
  summary: string;
  since_unix_ms: number;
  until_unix_ms: number;
  gain_upper_bound?: number;
  processes: string[];
  culprits: string[];
  next_step: string;
  shows_in: string[];
}

export interface Span {
  code: string;
  severity: number;
  from_unix_ms: number;
  until_unix_ms: number;
}

export interface Constraints {
  scopes: { labels: Labels; hosts: number; constraints: Constraint[] }[];
}

export interface Constraint {
  code: string;
  severity: number;
  confidence: number;
  share: number;
  summary: string;
  since_unix_ms: number;
  until_unix_ms: number;
  windows: number;
  shows_in: string[];
  diagnosis?: Diagnosis | string;
}

/** A diagnosis, as `chokepoint diagnose --json` writes it. An agent may leave anything out. */
export interface Diagnosis {
  host?: string;
  target?: string;
  window_s?: number;
  verdict?: Finding;
  ranked?: Finding[];
  decomposition?: Record<string, number>;
  behind?: Record<string, number>;
  demand?: Record<string, number>;
  coverage?: { threads: number; samples: number; lost: number; ends_known: number; missing: string[] };
}

export interface Finding {
  code: string;
  confidence: number;
  severity: string;
  share: number;
  gain_upper_bound?: number | null;
  summary: string;
  processes?: string[];
  culprits?: string[];
  functions?: string[];
  path?: string[];
  evidence?: Fact[];
  counter_evidence?: Fact[];
  hypothesis?: string;
  experiment?: string;
  next_steps?: Step[];
  shown_by?: string;
}

export interface Fact {
  what: string;
  value: number;
  unit: string;
  source: string;
}

export interface Step {
  action: string;
  impact: string;
  effort: string;
  risk: string;
}

export interface Decomposition extends Subject {
  classes: { name: string; group: string; colour: string }[];
  step_ms?: number;
  scopes: DecomposedScope[];
  left_out: number;
}

export interface DecomposedScope {
  labels: Labels;
  weight: number;
  weights: number[];
  steps?: { start_unix_ms: number; weights: number[] }[];
}

export interface SeriesSet extends Subject {
  step_ms: number;
  series: { labels: Labels; weight: number; values: (number | null)[] }[];
  others: { series: number; weight: number; values: (number | null)[] } | null;
}

export interface Signals {
  from_unix_ms: number;
  until_unix_ms: number;
  step_ms?: number;
  signals: Signal[];
}

export interface Signal {
  name: string;
  labels: Labels;
  unit: string;
  resource?: string;
  kind?: string;
  meaning?: string;
  thresholds?: { warning: number; critical: number | null } | null;
  values: SignalValue[];
}

export interface SignalValue {
  start_unix_ms: number;
  value: number;
  max: number;
  level: number;
}

export interface Change {
  name: string;
  module: string;
  self_share_before: number;
  self_share: number;
  total_share_before: number;
  total_share: number;
}

export interface Agents {
  agents: { labels: Labels; last_window_unix_ms: number; dropped_batches: number }[];
}
