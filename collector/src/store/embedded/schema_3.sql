-- Version 3.

-- Has all that tells which agents' windows are due, and finds those of one.
CREATE INDEX windows_by_agent ON windows (agent, start_unix_ns, duration_ns, rows);
-- What its last window says is missing of it, and what its agent had given up: sentences, as JSON.
ALTER TABLE agents ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agents ADD COLUMN given_up TEXT NOT NULL DEFAULT '[]';
-- When the agent last said hello or sent a batch, by the collector's clock. Those that were there before are as if seen with version 3.
ALTER TABLE agents ADD COLUMN seen_unix_ns INTEGER NOT NULL DEFAULT 0;
UPDATE agents SET seen_unix_ns = unixepoch() * 1000000000;
-- The least number of the agents whose rows a segment has: those of near numbers are of the same agents. 0: not known.
ALTER TABLE segments ADD COLUMN first_agent INTEGER NOT NULL DEFAULT 0;
