-- Windows as in `windows`, which has those that were stored before there was this table: by the hour, so that of each hour one can tell by
-- its parts whether anything has come since it was added up.
CREATE TABLE IF NOT EXISTS batches AS windows
ENGINE = ReplacingMergeTree PARTITION BY hour ORDER BY (kind, service, hour, agent, sequence)
{settings};

-- Both, for who reads. The database is named: a server that starts again takes `currentDatabase()` for its default one.
CREATE TABLE IF NOT EXISTS history AS batches ENGINE = Merge('{database}', '^(windows|batches)$');

-- Samples of an hour, added up by the minute. Rows are of a roll, and those of rolls that `rolls` does not have as done count nothing.
-- `windows` is in how many windows they were; it is never 0, so that no row goes as one that says nothing.
CREATE TABLE IF NOT EXISTS minutes (
    kind {word},
    service {word},
    hour UInt32 {ascending},
    roll UInt64,
    class {word},
    stack UInt64,
    series UInt64,
    minute UInt8,
    unit UInt8,
    windows UInt64,
    count UInt64 {packed},
    weight UInt64 {packed}
) ENGINE = SummingMergeTree((windows, count, weight)) PARTITION BY intDiv(hour, 24)
ORDER BY (kind, service, hour, roll, class, stack, series, minute, unit) {settings};

-- The same by the hour.
CREATE TABLE IF NOT EXISTS hours (
    kind {word},
    service {word},
    hour UInt32 {ascending},
    roll UInt64,
    class {word},
    stack UInt64,
    series UInt64,
    unit UInt8,
    windows UInt64,
    count UInt64 {packed},
    weight UInt64 {packed}
) ENGINE = SummingMergeTree((windows, count, weight)) PARTITION BY intDiv(hour, 168)
ORDER BY (kind, service, hour, roll, class, stack, series, unit) {settings};

-- Signals of an hour by the minute: `value` is the sum of those of so many windows, `max` and `level` are the highest.
CREATE TABLE IF NOT EXISTS signal_minutes (
    signal {word},
    series UInt64,
    hour UInt32 {ascending},
    roll UInt64,
    minute UInt8,
    unit {word},
    windows UInt64,
    value Float64,
    max Float64,
    level UInt8
) ENGINE = MergeTree PARTITION BY intDiv(hour, 24) ORDER BY (signal, series, hour, roll, minute) {settings};

-- The same by the hour.
CREATE TABLE IF NOT EXISTS signal_hours (
    signal {word},
    series UInt64,
    hour UInt32 {ascending},
    roll UInt64,
    unit {word},
    windows UInt64,
    value Float64,
    max Float64,
    level UInt8
) ENGINE = MergeTree PARTITION BY intDiv(hour, 168) ORDER BY (signal, series, hour, roll) {settings};

-- Who added up which hour: all its blocks after one, up to another. A row when one begins, and one when all is there.
CREATE TABLE IF NOT EXISTS rolls (
    hour UInt32,
    roll UInt64,
    after_block Int64,
    until_block Int64,
    at_unix_ns UInt64,
    is_done UInt8
) ENGINE = MergeTree PARTITION BY intDiv(hour, 168) ORDER BY (hour, roll) {settings}
