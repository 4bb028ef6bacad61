-- Version 2.

-- Bytes of all names, about, are among the totals. As the module `names` counts them.
INSERT INTO totals (name, value) SELECT 'name_bytes', coalesce(sum(bytes), 0) FROM (
    SELECT sum(2 * octet_length(text) + 16) AS bytes FROM strings
    UNION ALL SELECT count(*) * 32 FROM functions
    UNION ALL SELECT sum(2 * octet_length(build_id) + 32) FROM modules
    UNION ALL SELECT sum(2 * octet_length(lines) + 40) FROM locations
    UNION ALL SELECT count(*) * 32 FROM nodes
    UNION ALL SELECT sum(2 * octet_length(labels) + 16) FROM label_sets
    UNION ALL SELECT count(*) * 32 FROM series
    UNION ALL SELECT sum(2 * octet_length(name) + 16) FROM kinds
    UNION ALL SELECT count(*) * 48 FROM signals
);

-- Who may stream as an agent: the name that a token or certificate proved first. NULL: nobody has yet.
ALTER TABLE agents ADD COLUMN owner TEXT;
CREATE INDEX agents_by_owner ON agents (owner);
