-- One row per run, whose id sorts by time. `record` is the JSON that the program reads back, without what has its own table.
CREATE TABLE runs (
    id BLOB PRIMARY KEY,
    under_way INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX runs_under_way ON runs (id) WHERE under_way = 1;

-- The receipt that counts for a shard of a run.
CREATE TABLE receipts (
    run BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    shard INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    worker BLOB NOT NULL,
    receipt TEXT NOT NULL,
    PRIMARY KEY (run, shard)
) STRICT;

-- The request for the proof of a shard of a run. `attempt` fences late completions; `proof` is an artifact in JSON, or empty.
CREATE TABLE jobs (
    run BLOB NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    shard INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    state TEXT NOT NULL,
    proof TEXT NOT NULL,
    PRIMARY KEY (run, shard)
) STRICT;

-- Which shard a worker held last, so that it gets the same one back and can prove its earlier runs.
CREATE TABLE holders (
    worker BLOB NOT NULL,
    plan BLOB NOT NULL,
    shard INTEGER NOT NULL,
    PRIMARY KEY (worker, plan)
) STRICT;

-- Setups that are done, each under the digest of all that it depends on.
CREATE TABLE setups (
    id BLOB PRIMARY KEY,
    setup TEXT NOT NULL
) STRICT;

-- Which process serves. Every write of state names its `term` and fails under another; `beat` counts its signs of life.
CREATE TABLE leases (
    service TEXT PRIMARY KEY,
    owner BLOB NOT NULL,
    holder BLOB NOT NULL,
    term INTEGER NOT NULL,
    beat INTEGER NOT NULL,
    released INTEGER NOT NULL
) STRICT;
