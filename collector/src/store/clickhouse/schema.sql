-- Windows: one row for each batch and what is asked for together, all rows of a batch in one block.
--
-- The row of kind '' has what there is once: signals, the verdict, what is missing. The others have the samples of one kind and service, as
-- arrays of one length. A batch that came twice has its rows twice until they are merged; who reads takes one of each
-- (kind, service, agent, sequence).
CREATE TABLE IF NOT EXISTS windows (
    day Date,
    kind {word},
    service {word},
    hour UInt32 {ascending},
    agent FixedString(16),
    sequence UInt64 {ascending},
    start_unix_ns UInt64 {ascending},
    duration_ns UInt64,
    unit UInt8,
    series Array(UInt64) {packed},
    class Array({word}),
    stack Array(UInt64) {packed},
    count Array(UInt64) {packed},
    weight Array(UInt64) {packed},
    host UInt64,
    signal Array({word}),
    signal_resource Array({word}),
    signal_kind Array({word}),
    signal_unit Array({word}),
    signal_series Array(UInt64),
    signal_level Array(UInt8),
    signal_value Array(Float64),
    signal_p50 Array(Float64),
    signal_p95 Array(Float64),
    signal_p99 Array(Float64),
    signal_p999 Array(Float64),
    signal_max Array(Float64),
    dropped_batches UInt64,
    notes Array(String),
    given_up Array(String),
    has_verdict UInt8,
    code {word},
    confidence Float64,
    severity UInt8,
    share Float64,
    summary String {packed},
    diagnosis String {packed}
    {moment}
) ENGINE = ReplacingMergeTree PARTITION BY day ORDER BY (kind, service, hour, agent, sequence)
{settings};

-- Whose rows are: label names with their values, in the order of the names.
CREATE TABLE IF NOT EXISTS series (
    id UInt64,
    names Array({word}),
    values Array(String),
    added DateTime DEFAULT now()
) ENGINE = ReplacingMergeTree ORDER BY id {settings};

-- Places in code, with the functions there, the innermost inlined one first.
CREATE TABLE IF NOT EXISTS frames (
    id UInt64,
    module_kind Int32,
    module {word},
    build_id String,
    address UInt64,
    is_spin_wait UInt8,
    functions Array(String),
    files Array({word}),
    lines Array(UInt32)
) ENGINE = ReplacingMergeTree ORDER BY id {settings};

-- Stacks: their frames, the leaf first.
CREATE TABLE IF NOT EXISTS stacks (
    id UInt64,
    frames Array(UInt64) {packed}
) ENGINE = ReplacingMergeTree ORDER BY id {settings};

-- What is measured, and in which unit.
CREATE TABLE IF NOT EXISTS kinds (
    kind String,
    unit UInt8
) ENGINE = ReplacingMergeTree ORDER BY (kind, unit) {settings};

-- Agents as they said hello, the last time counts.
CREATE TABLE IF NOT EXISTS agents (
    agent FixedString(16),
    names Array(String),
    values Array(String),
    kernel String,
    program String,
    cpus UInt32,
    seen_unix_ns UInt64
) ENGINE = ReplacingMergeTree(seen_unix_ns) ORDER BY agent {settings};

-- Who may stream as an agent: the first of the claims after the last one that is empty, which disowns it.
CREATE TABLE IF NOT EXISTS owners (
    agent FixedString(16),
    claimed_unix_ns UInt64,
    claim UInt64,
    owner String
) ENGINE = MergeTree ORDER BY agent {settings}
