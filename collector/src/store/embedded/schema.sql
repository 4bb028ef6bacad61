-- Version 1. What is stored once for all hosts, by the number that everything else refers to it by. Numbers begin at 1; 0 is none.
CREATE TABLE strings (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE) STRICT;
-- Numbers of strings.
CREATE TABLE functions (
    id INTEGER PRIMARY KEY, name INTEGER NOT NULL, file INTEGER NOT NULL, UNIQUE (name, file)
) STRICT;
CREATE TABLE modules (
    id INTEGER PRIMARY KEY, kind INTEGER NOT NULL, path INTEGER NOT NULL, build_id BLOB NOT NULL, UNIQUE (path, kind, build_id)
) STRICT;
-- `lines`: whether it is a loop that waits, then function and line of each entry, as varints. Part of the key, for code that a runtime
-- compiled is something else at the same address on the next host.
CREATE TABLE locations (
    id INTEGER PRIMARY KEY, module INTEGER NOT NULL, address INTEGER NOT NULL, lines BLOB NOT NULL, UNIQUE (module, address, lines)
) STRICT;
-- Stacks as a tree, from the outermost frame.
CREATE TABLE nodes (
    id INTEGER PRIMARY KEY, parent INTEGER NOT NULL, location INTEGER NOT NULL, UNIQUE (location, parent)
) STRICT;
-- `labels`: numbers of strings as varints, a name and its value, in the order of the names' numbers.
CREATE TABLE label_sets (id INTEGER PRIMARY KEY, labels BLOB NOT NULL UNIQUE) STRICT;
-- Whose a row is: the labels of the host, and its own.
CREATE TABLE series (
    id INTEGER PRIMARY KEY, host INTEGER NOT NULL, own INTEGER NOT NULL, UNIQUE (host, own)
) STRICT;
CREATE TABLE kinds (id INTEGER PRIMARY KEY, name TEXT NOT NULL, unit INTEGER NOT NULL, UNIQUE (name, unit)) STRICT;
-- Numbers of strings.
CREATE TABLE signals (
    id INTEGER PRIMARY KEY, name INTEGER NOT NULL, resource INTEGER NOT NULL, kind INTEGER NOT NULL, unit INTEGER NOT NULL,
    UNIQUE (name, resource, kind, unit)
) STRICT;

CREATE TABLE agents (
    id INTEGER PRIMARY KEY,
    identity BLOB NOT NULL UNIQUE,
    host INTEGER NOT NULL,
    kernel TEXT NOT NULL,
    program TEXT NOT NULL,
    cpus INTEGER NOT NULL,
    last_window_unix_ns INTEGER NOT NULL DEFAULT 0,
    batches INTEGER NOT NULL DEFAULT 0,
    dropped_batches INTEGER NOT NULL DEFAULT 0
) STRICT;
-- Which batches were stored: runs of sequence numbers, both ends inclusive.
CREATE TABLE stored (
    agent INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (agent, first)
) STRICT, WITHOUT ROWID;

-- Windows that are not in a segment yet. The columns of `samples` and `signals` are in the module `fresh`.
CREATE TABLE windows (
    id INTEGER PRIMARY KEY,
    agent INTEGER NOT NULL,
    start_unix_ns INTEGER NOT NULL,
    duration_ns INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    samples BLOB NOT NULL,
    signals BLOB NOT NULL
) STRICT;
-- Has all that tells which of them are due.
CREATE INDEX windows_by_start ON windows (start_unix_ns, duration_ns, rows);

-- Runs of windows in which the same limited a host; `diagnosis` is compressed with zstd.
CREATE TABLE verdicts (
    id INTEGER PRIMARY KEY,
    agent INTEGER NOT NULL,
    host INTEGER NOT NULL,
    code TEXT NOT NULL,
    from_unix_ns INTEGER NOT NULL,
    last_unix_ns INTEGER NOT NULL,
    until_unix_ns INTEGER NOT NULL,
    windows INTEGER NOT NULL,
    confidence REAL NOT NULL,
    severity INTEGER NOT NULL,
    share REAL NOT NULL,
    summary TEXT NOT NULL,
    diagnosis BLOB NOT NULL
) STRICT;
CREATE INDEX verdicts_by_agent ON verdicts (agent, from_unix_ns);
CREATE INDEX verdicts_by_end ON verdicts (until_unix_ns);

-- Files of history. `level`: 0 windows, 1 minutes, 2 hours. `parent`: the coarser segment that has all of its rows, too; 0: none yet.
-- `is_finest`: whether nothing finer of the same rows is left. `series`: those that it has rows of.
CREATE TABLE segments (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    file TEXT NOT NULL UNIQUE,
    content INTEGER NOT NULL,
    level INTEGER NOT NULL,
    from_unix_ns INTEGER NOT NULL,
    until_unix_ns INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    is_finest INTEGER NOT NULL,
    series BLOB NOT NULL
) STRICT;
CREATE INDEX segments_by_time ON segments (content, level, from_unix_ns);
CREATE INDEX segments_by_parent ON segments (parent);

-- Files that tell other programs what the numbers in segments mean: of stacks, or of series, up to this number.
CREATE TABLE names (
    id INTEGER PRIMARY KEY AUTOINCREMENT, file TEXT NOT NULL UNIQUE, content TEXT NOT NULL, last INTEGER NOT NULL,
    after_segment INTEGER NOT NULL
) STRICT;

-- Totals since the store was made: what was deleted.
CREATE TABLE totals (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
