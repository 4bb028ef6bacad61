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
  told_from_unix_ms: number;
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

/** What limits services, across their hosts. */
export interface Fleet {
  from_unix_ms: number;
  until_unix_ms: number;
  services: Service[];
  left_out: number;
  outliers: { host: string; among: Labels; hosts: number; code: string; differences: { name: string; unit: string; value: number; median: number }[] }[];
  neighbours: { host: string; victim: Labels; culprits: string[]; share: number }[];
  missing: string[];
}

export interface Service {
  labels: Labels;
  hosts: number;
  healthy: number;
  idle: number;
  unknown: number;
  /** Of the CPUs of its hosts: the median of them. */
  cpu_free_pct?: number;
  constraints: ServiceConstraint[];
  exceptions: ServiceConstraint[];
  missing: string[];
}

export interface ServiceConstraint {
  code: string;
  hosts: number;
  share_of_hosts: number;
  named_hosts: string[];
  severity: number;
  confidence: number;
  share: number;
  summary: string;
  /** 0 where it is not known. */
  since_unix_ms: number;
  since_is_earlier: boolean;
  waits_for: { labels: Labels; address: string; hosts: string[]; code?: string | null }[];
  next_step: string;
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

/** Two selections compared step by step. */
export interface Comparison {
  before: Subject & { steps: number };
  after: Subject & { steps: number };
  step_ms: number;
  total: Compared[];
  classes: Compared[];
  functions: Compared[];
  functions_left_out: number;
  signals: Compared[];
  notes: string[];
}

export interface Compared {
  name: string;
  instance: string;
  unit: string;
  before: number;
  after: number;
  change: number;
  relative: number | null;
  interval: [number, number] | null;
  p: number | null;
  is: "grew" | "shrank" | "chance" | "unknown";
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
  agents: { labels: Labels; kernel: string; last_window_unix_ms: number; dropped_batches: number; notes?: string[]; given_up?: string[] }[];
}

/** The processes of a host that ran most in its agent's last window. */
export interface Processes {
  host: string;
  /** 0 where the agent has told of none since it connected. */
  until_unix_ms: number;
  window_ms: number;
  processes: HostProcess[];
  left_out: number;
}

export interface HostProcess {
  pid: number;
  name: string;
  /** In use, on average over the window. */
  cpus: number;
  /** namespace/name; empty where none is known, as is the container. */
  pod: string;
  container: string;
}

/** Who asks: without tokens everybody has every role. */
export interface Access {
  asks_for_tokens: boolean;
  name: string | null;
  roles: string[];
}

/** A profile on demand, from the question to its end. */
export interface OnDemand {
  id: string;
  state: "asked" | "recording" | "receiving" | "reading" | "done" | "failed" | "cancelled";
  host: string;
  agent: string;
  target: string;
  frequency_hz: number;
  duration_ms: number;
  asked_unix_ms: number;
  taken_ms: number;
  recorded_ms: number;
  samples: number;
  bytes: number;
  error: string | null;
  outcome: { window_ms: number; captured: number; lost: number; coverage: string[]; verdict: { code: string; severity: string; confidence: number; share: number; summary: string; next_step: string }; diagnosis: Diagnosis | null } | null;
}

export interface Timeline {
  duration_ns: number;
  classes: { name: string; group: string; colour: string }[];
  threads: TimelineThread[];
  left_out: number;
  missing: number;
  last_ns: number;
}

export interface TimelineThread {
  pid: number;
  tid: number;
  process: string;
  thread: string;
  end_ns: number[];
  length_ns: number[];
  class: number[];
}

export interface Bursts {
  duration_ns: number;
  column_ns: number;
  columns: number[][];
  missing: number;
}

/** Lengths of something over time: how many of each in each step. */
export interface Latencies {
  of: string;
  unit: string;
  bounds: (number | null)[];
  instances: { instance: string; labels: Labels; times: number[]; counts: number[][] }[];
}

export interface Retransmits {
  peers: { local: string; remote: string; count: number; labels: Labels }[];
  others: number;
}
