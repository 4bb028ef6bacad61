-- Version 3.

-- Has all that tells which agents' windows are due, and finds those of one.
CREATE INDEX windows_by_agent ON windows (agent, start_unix_ns, duration_ns, rows);
-- The least number of the agents whose rows a segment has: those of near numbers are of the same agents. 0: not known.
ALTER TABLE segments ADD COLUMN first_agent INTEGER NOT NULL DEFAULT 0;
