"""What DuckDB needs for the same rows: python peer.py STORE END_UNIX_NS SERVICE. Prints lines of `name value`."""

import glob
import os
import sys
import time

import duckdb

TURNS = 7
HOUR_NS = 3_600_000_000_000

store, end, service = sys.argv[1], int(sys.argv[2]), sys.argv[3]
connection = duckdb.connect()
segments = os.path.join(store, "segments")


def files(level):
    return sorted(glob.glob(os.path.join(segments, f"samples-{level}-*.parquet")))


def group_by(level, name):
    """The weight of each stack and class of one service in the last hour: what a flame graph begins with."""
    sql = f"""
        SELECT stack, class_id, sum(weight), sum(count) FROM read_parquet({files(level)})
        WHERE kind = 'wall' AND service = '{service}' AND epoch_ns(start_unix_ns) >= {end - HOUR_NS} AND epoch_ns(start_unix_ns) < {end}
        GROUP BY ALL"""
    times = []
    for _ in range(TURNS):
        begin = time.perf_counter()
        rows = connection.execute(sql).fetchall()
        times.append((time.perf_counter() - begin) * 1e3)
    times.sort()
    print(f"duckdb_{name}_ms {times[TURNS // 2]:.1f}")
    print(f"duckdb_{name}_ms_least {times[0]:.1f}")
    print(f"duckdb_{name}_rows {len(rows)}")


print(f"duckdb_version {duckdb.__version__}")
group_by("windows", "windows")
group_by("hours", "hours")

# The same rows in the order in which they came, as anybody would write them.
plain = os.path.join(store, "plain.parquet")
connection.execute(f"""
    COPY (
        SELECT kind, service, host, class, series, stack, start_unix_ns, count, weight FROM read_parquet({files("windows")})
        ORDER BY start_unix_ns, series, class, stack
    ) TO '{plain}' (FORMAT parquet, COMPRESSION zstd)""")
rows = connection.execute(f"SELECT count(*) FROM '{plain}'").fetchone()[0]
print(f"plain_rows {rows}")
print(f"plain_bytes {os.path.getsize(plain)}")
os.remove(plain)
